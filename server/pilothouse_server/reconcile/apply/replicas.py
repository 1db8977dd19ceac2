"""The number of pods of a workload, and its owner.

The number is set through the scale subresource, and only if the desired number differs from the last one that we set,
which the annotation `replicas-set` on the workload records. So the platform does not fight an autoscaler. The scale is
set before the annotation: if a server is killed in between, the scale is set again; in the other order it would never
be set.

A HorizontalPodAutoscaler that targets the workload owns the number: its count becomes the desired one. It does not
act on zero, so stopping and starting remain ours. An autoscaler with the condition `ScaledToZero` (Kubernetes 1.37) has
set zero itself: that is neither a stop nor drift, and the desired number stays.

If there is no autoscaler and the number is not ours, another client has set it: REPAIR sets ours again, ADOPT makes
theirs the desired number, REPORT leaves it and reports it. REPAIR also leaves it if the cluster denies us the list of
autoscalers, or if there is an autoscaler and the number is zero: it might fight the autoscaler.
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
        return await _count_matches(client, container)
    if wanted == 0:
        if asked or drift.policy != "report":
            return Replicas(scale=0)
        drift.kept.append(await _difference(client, container, live))
        return Replicas()
    repairs = drift.policy == "repair" and not asked
    autoscaler, denied = await _look(client, container) if live > 0 or not asked else (None, False)
    if autoscaler is not None and (live > 0 or (autoscaler.scaled_to_zero and not asked)):
        return _autoscaled(autoscaler, live)
    # At zero the condition waits until the workload is started again.
    condition = _no_longer(container) if live > 0 and not denied else None
    if asked:
        return Replicas(scale=wanted, condition=condition)
    if drift.policy == "adopt":
        return Replicas(adopt=live, condition=condition)
    difference = await _difference(client, container, live)
    # Software that scales to zero, such as KEDA, has an autoscaler for all other numbers.
    if repairs and autoscaler is None and not denied:
        drift.repaired.append(difference)
        return Replicas(scale=wanted, condition=condition)
    drift.kept.append(difference)
    return Replicas(condition=condition)


def by_nodes(container: Container, present: WorkloadObject | None) -> Replicas:
    """Returns the number of nodes that a DaemonSet has pods on, if it differs from the stored number."""
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
    """Returns the autoscaler, if there is one, and whether the cluster denied the list."""
    try:
        return await _find_autoscaler(client, container), False
    except Forbidden:
        return None, True


async def _count_matches(client: LeasedClient, container: Container) -> Replicas:
    """Returns the condition if a known autoscaler is deleted.

    A new one is noticed by the number that it sets.
    """
    if container.wanted_replicas == 0 or not is_autoscaled(container):
        return Replicas()
    autoscaler, denied = await _look(client, container)
    return Replicas(condition=None if denied or autoscaler is not None else _no_longer(container))


async def _find_autoscaler(client: LeasedClient, container: Container) -> HorizontalPodAutoscaler | None:
    """Returns the HorizontalPodAutoscaler that targets the container's workload, or None.

    Raises Forbidden if the cluster denies the list.
    """
    try:
        found = await client.list(HORIZONTAL_POD_AUTOSCALERS, container.kubernetes_namespace, "")
    except NotFound:
        # The cluster does not have this API.
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
    """Returns whether an autoscaler was observed and is not known to be deleted."""
    return any(c.type == AUTOSCALED and c.status == "True" for c in container.observed.conditions)


def _no_longer(container: Container) -> Condition | None:
    return Condition(AUTOSCALED, "False", "NoAutoscaler") if is_autoscaled(container) else None
