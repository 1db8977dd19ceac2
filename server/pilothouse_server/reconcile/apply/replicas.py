"""How many pods a Deployment should have, and whose say that is.

The number is set through the scale subresource, and only when *we* want another one than the last time we set it, which
the annotation `replicas-set` on the Deployment remembers; so an autoscaler is not fought. The scale is set before
the annotation is: killed in between it is set again, the other way round it would never be.

A HorizontalPodAutoscaler that targets the Deployment owns the number: its count becomes what is wanted. It does not
act on zero, so stopping and starting remain ours. Where nobody of that kind is to be seen and the number is another
than ours, ADOPT takes it over and the other policies leave it and say so: other programs scale too. Only a container
that shall have no pods is held at zero, unless it merely reports.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.observation import AUTOSCALED
from pilothouse_server.kubernetes.errors import Forbidden, NotFound
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, Deployment
from pilothouse_server.reconcile.apply.drift import Difference, Drift, manager_of_replicas
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition


class Replicas(msgspec.Struct, frozen=True):
    """`scale`: set this number. `adopt`: take this number over. `condition`: what to say of an autoscaler."""

    scale: int | None = None
    adopt: int | None = None
    condition: Condition | None = None


async def decide(client: LeasedClient, container: Container, present: Deployment, drift: Drift) -> Replicas:
    """Returns what to do about the replicas of a Deployment that is there. Raises ClusterError."""
    wanted, live = container.wanted_replicas, present.spec.replicas
    asked = present.metadata.annotation(manifests.REPLICAS_SET) != str(wanted)
    if live == wanted:
        return Replicas()
    if wanted == 0:
        if asked or drift.policy != "report":
            return Replicas(scale=0)
        await _record(client, container, live, drift)
        return Replicas()
    if live > 0 and (autoscaler := await find_autoscaler(client, container)) is not None:
        message = f"{live} replicas, set by HorizontalPodAutoscaler {autoscaler}"
        return Replicas(
            adopt=live, condition=Condition(AUTOSCALED, "True", "HorizontalPodAutoscaler", message)
        )
    # At zero nobody looked for one: it waits until it is started again.
    condition = _no_longer(container) if live > 0 else None
    if asked:
        return Replicas(scale=wanted, condition=condition)
    if drift.policy == "adopt":
        return Replicas(adopt=live, condition=condition)
    await _record(client, container, live, drift)
    return Replicas(condition=condition)


async def find_autoscaler(client: LeasedClient, container: Container) -> str | None:
    """Returns the name of the HorizontalPodAutoscaler that targets the container's Deployment, or None."""
    try:
        found = await client.list(HORIZONTAL_POD_AUTOSCALERS, container.kubernetes_namespace, "")
    except (NotFound, Forbidden):
        # The cluster has no such API, or does not let us look: then the number itself must show it.
        return None
    for autoscaler in found:
        target = autoscaler.spec.scale_target_ref
        if target.kind == "Deployment" and target.name == container.kubernetes_name:
            return autoscaler.metadata.name
    return None


async def set_scale(client: LeasedClient, container: Container, replicas: int) -> None:
    """Sets the number of pods."""
    await client.set_scale(DEPLOYMENTS, container.kubernetes_namespace, container.kubernetes_name, replicas)


async def _record(client: LeasedClient, container: Container, live: int, drift: Drift) -> None:
    whole = await client.read(DEPLOYMENTS, container.kubernetes_namespace, container.kubernetes_name)
    field = f".spec.replicas ({live} in place of {container.wanted_replicas})"
    drift.kept.append(Difference("Deployment", container.kubernetes_name, field, manager_of_replicas(whole)))


def _no_longer(container: Container) -> Condition | None:
    if not any(condition.type == AUTOSCALED for condition in container.observed.conditions):
        return None
    return Condition(AUTOSCALED, "False", "NoAutoscaler")
