"""The number of pods of a workload, and its owner.

The number is set through the scale subresource, and only when *we* want another one than the last time we set it, which
the annotation `replicas-set` on the workload remembers; so an autoscaler is not fought. The scale is set before
the annotation is: killed in between it is set again, the other way round it would never be.

A HorizontalPodAutoscaler that targets the workload owns the number: its count becomes the desired one. It does not
act on zero, so stopping and starting remain ours. One with the condition `ScaledToZero` (Kubernetes 1.37) has set
zero itself: that is neither a stop nor drift, and the wanted number stays.

Where there is none and the number is another than ours, somebody else has set it: REPAIR sets ours again, ADOPT takes
theirs over, REPORT leaves it and says so. Where the cluster does not let us look for one, and at zero where there is
one, REPAIR leaves it too, or it might fight an autoscaler.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.observation import AUTOSCALED, GREW, SCALED_TO_ZERO
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.kubernetes.errors import Forbidden, NotFound
from pilothouse_server.kubernetes.objects import (
    HORIZONTAL_POD_AUTOSCALERS,
    HorizontalPodAutoscaler,
    WorkloadObject,
)
from pilothouse_server.reconcile.apply.drift import Difference, Drift, manager_of_replicas
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition


class Replicas(msgspec.Struct, frozen=True):
    """`scale`: set this number. `adopt`: adopt this number. `condition`: the message about an autoscaler."""

    scale: int | None = None
    adopt: int | None = None
    condition: Condition | None = None


async def decide(
    client: LeasedClient, container: Container, present: WorkloadObject, drift: Drift
) -> Replicas:
    """Returns the decision about the replicas of an existing workload. Raises ClusterError."""
    wanted, live = container.wanted_replicas, present.replicas
    asked = present.metadata.annotation(manifests.REPLICAS_SET) != str(wanted)
    if live == wanted:
        return await _as_wanted(client, container)
    if wanted == 0:
        if asked or drift.policy != "report":
            return Replicas(scale=0)
        drift.kept.append(await _difference(client, container, live))
        return Replicas()
    repairs = drift.policy == "repair" and not asked
    autoscaler, denied = await _look(client, container) if live > 0 or not asked else (None, False)
    if autoscaler is not None and (live > 0 or (autoscaler.scaled_to_zero and not asked)):
        return _autoscaled(autoscaler, live)
    # At zero it waits until it is started again.
    condition = _no_longer(container) if live > 0 and not denied else None
    if asked:
        return Replicas(scale=wanted, condition=condition)
    if drift.policy == "adopt":
        return Replicas(adopt=live, condition=condition)
    difference = await _difference(client, container, live)
    # A program that scales to zero (KEDA) has an autoscaler for all other numbers.
    if repairs and autoscaler is None and not denied:
        drift.repaired.append(difference)
        return Replicas(scale=wanted, condition=condition)
    drift.kept.append(difference)
    return Replicas(condition=condition)


def by_nodes(container: Container, present: WorkloadObject | None) -> Replicas:
    """Returns the number of nodes that a DaemonSet has pods on, if it is another one than is known."""
    if present is None or container.wanted_replicas in (0, present.replicas) or present.replicas == 0:
        return Replicas()
    live, before = present.replicas, container.replicas
    message = f"pods on {live} nodes count against the quota, in place of {before}"
    condition = Condition(GREW, "True" if live > before else "False", "NodesChanged", message)
    return Replicas(adopt=live, condition=condition)


def _autoscaled(autoscaler: HorizontalPodAutoscaler, live: int) -> Replicas:
    message = f"{live} replicas, set by HorizontalPodAutoscaler {autoscaler.metadata.name}"
    if live == 0:
        return Replicas(condition=Condition(AUTOSCALED, "True", SCALED_TO_ZERO, message))
    return Replicas(adopt=live, condition=Condition(AUTOSCALED, "True", "HorizontalPodAutoscaler", message))


async def _look(client: LeasedClient, container: Container) -> tuple[HorizontalPodAutoscaler | None, bool]:
    """Returns the autoscaler, if there is one, and whether the cluster does not let us look."""
    try:
        return await _find_autoscaler(client, container), False
    except Forbidden:
        return None, True


async def _as_wanted(client: LeasedClient, container: Container) -> Replicas:
    """Says so where an autoscaler that was seen before is gone; one that came since shows itself by its number."""
    if container.wanted_replicas == 0 or not is_autoscaled(container):
        return Replicas()
    autoscaler, denied = await _look(client, container)
    return Replicas(condition=None if denied or autoscaler is not None else _no_longer(container))


async def _find_autoscaler(client: LeasedClient, container: Container) -> HorizontalPodAutoscaler | None:
    """Returns the HorizontalPodAutoscaler that targets the container's workload, or None.

    Raises Forbidden where the cluster does not let us look.
    """
    try:
        found = await client.list(HORIZONTAL_POD_AUTOSCALERS, container.kubernetes_namespace, "")
    except NotFound:
        # The cluster has no such API.
        return None
    for autoscaler in found:
        target = autoscaler.spec.scale_target_ref
        if target.kind == workload_type(container).kind and target.name == container.kubernetes_name:
            return autoscaler
    return None


async def set_scale(client: LeasedClient, container: Container, replicas: int) -> None:
    """Sets the number of pods."""
    resource = workload_type(container).resource
    await client.set_scale(resource, container.kubernetes_namespace, container.kubernetes_name, replicas)


async def _difference(client: LeasedClient, container: Container, live: int) -> Difference:
    resource = workload_type(container).resource
    whole = await client.read(resource, container.kubernetes_namespace, container.kubernetes_name)
    field = f".spec.replicas ({live} in place of {container.wanted_replicas})"
    return Difference(resource.kind, container.kubernetes_name, field, manager_of_replicas(whole))


def is_autoscaled(container: Container) -> bool:
    """Returns whether an autoscaler was seen that is not known to be gone."""
    return any(c.type == AUTOSCALED and c.status == "True" for c in container.observed.conditions)


def _no_longer(container: Container) -> Condition | None:
    return Condition(AUTOSCALED, "False", "NoAutoscaler") if is_autoscaled(container) else None
