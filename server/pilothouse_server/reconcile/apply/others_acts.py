"""Actions of others on whole objects of a container: a restart of its pods, or a deletion that we repaired.

Neither is drift, because the objects match; each leaves a line in the history. The fingerprint from the last apply
shows that an object existed. The time of the last `kubectl rollout restart` is stored next to the fingerprints, so each
restart is recorded once, even if it happened while no server ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pilothouse_server.containers.observation import REPAIRED
from pilothouse_server.containers.workloads import WorkloadType
from pilothouse_server.kubernetes import fingerprints, managed_fields
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.events import Warned
from pilothouse_server.kubernetes.objects import WorkloadObject
from pilothouse_server.reconcile.apply.additions import RESTARTED_AT
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition

_RESTARTED: Final = "RestartedAt"


def recreated(objects: Sequence[tuple[str, str]]) -> tuple[tuple[Condition, ...], tuple[Warned, ...]]:
    """Returns the condition `Repaired` and the lines of the history for objects that were created again."""
    if not objects:
        return (), ()
    lines = tuple(
        Warned("Recreated", f"{kind} {name} was deleted by others and recreated") for kind, name in objects
    )
    message = "; ".join(line.message for line in lines)
    return (Condition(REPAIRED, "True", "Recreated", message),), lines


def restart_mark(workload: WorkloadObject) -> dict[str, str]:
    """Returns the stored value for the last restart by others; nothing if there was none."""
    restarted_at = workload.pod_template.metadata.annotation(RESTARTED_AT)
    return {fingerprints.key(_RESTARTED, workload.metadata.name): restarted_at} if restarted_at else {}


async def restarts(
    client: LeasedClient, type_: WorkloadType, workload: WorkloadObject | None, noted: Mapping[str, str]
) -> tuple[Warned, ...]:
    """Returns the line of the history for a restart by others since the last apply. Raises ClusterError."""
    if workload is None or not noted:
        return ()
    name = workload.metadata.name
    mark = restart_mark(workload)
    if not mark or all(noted.get(key) == value for key, value in mark.items()):
        return ()
    live = await client.read(type_.resource, workload.metadata.namespace, name)
    path = f".spec.template.metadata.annotations.{RESTARTED_AT}"
    manager = managed_fields.holder(live, path, apart_from=FIELD_MANAGER)
    who = repr(manager) if manager else "others"
    (restarted_at,) = mark.values()
    return (
        Warned("RestartedByOthers", f"{type_.kind} {name} was restarted by {who} at {restarted_at[:64]}"),
    )
