"""What is done on a cluster to bring one container there, or to take it away.

Every step may be the last one before a kill, and every step may be repeated: objects are applied by server-side apply
and found again by name and our label; deletions name the uid. Nothing is remembered outside the cluster and the
database.

Replicas. The number is set through the scale subresource, and only when *we* want another one than the last time we set
it, which the annotation `replicas-set` on the Deployment remembers; so an autoscaler, or a person, is not fought. The
scale is set before the annotation is: killed in between it is set again, the other way round it would never be. A
Deployment that shall not start with one pod (the API's default) is made paused, scaled, and released by the apply that
follows. A container that shall have no pods is held at zero, unless it only reports drift.

Drift. An apply first asks politely. If another manager owns a field of ours, `REPAIR` takes it back by force and says
so in the condition `Drifted`; `REPORT` and `ADOPT` leave the cluster as it is and say whose field it is.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.cluster import manifests
from pilothouse_server.cluster.errors import Conflict, Forbidden
from pilothouse_server.cluster.objects import (
    DEPLOYMENTS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Deployment,
    KubernetesObject,
    Manifest,
    Resource,
    T,
)
from pilothouse_server.cluster.observation import APPLIED, DRIFTED
from pilothouse_server.containers.model import Condition, Container
from pilothouse_server.reconcile.leased_client import LeasedClient

# How soon to look whether the cluster has finished what was asked of it; its observer mostly says so earlier.
AGAIN_SECONDS = 0.5


class Result(msgspec.Struct, frozen=True):
    """How far it came. `again_seconds`: the cluster is not done, look again. `gone`: nothing of it is left."""

    deployment: Deployment | None = None
    conditions: tuple[Condition, ...] = ()
    again_seconds: float | None = None
    gone: bool = False


class _Drift:
    """Collects whose fields were met, over all objects of a container."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def note(self, manifest: Manifest, conflict: Conflict) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.words += [f"{kind} {name} {field.field} by {field.manager!r}" for field in conflict.fields]

    def condition(self, *, repaired: bool) -> Condition:
        if not self.words:
            return Condition(DRIFTED, "False", "InSync")
        words = "; ".join(self.words)
        if repaired:
            return Condition(DRIFTED, "False", "Repaired", f"taken back: {words}")
        return Condition(DRIFTED, "True", "FieldManagerConflict", f"changed by others and kept: {words}")


async def bring(client: LeasedClient, container: Container) -> Result:
    """Make the cluster show the container. Raises ClusterError, among them Conflict `NameTaken`; LeaseLost."""
    deployment = await client.find(DEPLOYMENTS, container.kubernetes_namespace, container.kubernetes_name)
    if deployment is not None:
        _check_ours(container, "Deployment", deployment)
        if deployment.metadata.deletion_timestamp is not None:
            # Somebody deletes it behind our back; an apply would succeed and be lost. It is made anew when it is gone.
            return Result(
                deployment,
                (_applied("Unknown", "Deleting", "the Deployment is being deleted"),),
                AGAIN_SECONDS,
            )
    drift = _Drift()
    repair = container.drift_policy == "repair"
    await _bring_service_account(client, container)
    await _bring_services(client, container, drift, repair=repair)
    deployment = await _bring_deployment(client, container, deployment, drift, repair=repair)
    return Result(deployment, (_applied("True", "Applied", ""), drift.condition(repaired=repair)))


async def take_away(client: LeasedClient, container: Container, *, keep_service_account: bool) -> Result:
    """Delete the container's objects; `gone` once there is none. Raises ClusterError, LeaseLost."""
    namespace = container.kubernetes_namespace
    selector = f"{manifests.CONTAINER_UID}={container.uid}"
    for service in await client.list(SERVICES, namespace, selector):
        await client.delete(SERVICES, namespace, service.metadata.name, uid=service.metadata.uid)
    deployment = await client.find(DEPLOYMENTS, namespace, container.kubernetes_name)
    if deployment is not None and _is_ours(container, deployment):
        if deployment.metadata.deletion_timestamp is None:
            await client.delete(
                DEPLOYMENTS, namespace, container.kubernetes_name, uid=deployment.metadata.uid
            )
        return Result(deployment, again_seconds=AGAIN_SECONDS)
    if not keep_service_account and container.spec.service_account:
        await _take_away_service_account(client, container)
    return Result(gone=True)


async def _bring_service_account(client: LeasedClient, container: Container) -> None:
    manifest = manifests.service_account(container)
    if manifest is None:
        return
    found = await client.find(
        SERVICE_ACCOUNTS, container.kubernetes_namespace, container.spec.service_account
    )
    # One that is there already (`default`, or somebody's with rights of its own) is used as it is.
    if found is None:
        await client.apply(SERVICE_ACCOUNTS, manifest)


async def _take_away_service_account(client: LeasedClient, container: Container) -> None:
    name = container.spec.service_account
    found = await client.find(SERVICE_ACCOUNTS, container.kubernetes_namespace, name)
    if found is not None and found.metadata.label(manifests.MANAGED_BY) == manifests.MANAGER:
        await client.delete(SERVICE_ACCOUNTS, container.kubernetes_namespace, name, uid=found.metadata.uid)


async def _bring_services(client: LeasedClient, container: Container, drift: _Drift, *, repair: bool) -> None:
    namespace = container.kubernetes_namespace
    selector = f"{manifests.CONTAINER_UID}={container.uid}"
    present = {service.metadata.name: service for service in await client.list(SERVICES, namespace, selector)}
    wanted = manifests.services(container)
    for manifest in wanted:
        name = manifest["metadata"]["name"]
        if name not in present and (other := await client.find(SERVICES, namespace, name)) is not None:
            _check_ours(container, "Service", other)
        await _apply(client, SERVICES, manifest, drift, repair=repair)
    names = {manifest["metadata"]["name"] for manifest in wanted}
    for name, service in present.items():
        if name not in names:
            await client.delete(SERVICES, namespace, name, uid=service.metadata.uid)


async def _bring_deployment(
    client: LeasedClient, container: Container, present: Deployment | None, drift: _Drift, *, repair: bool
) -> Deployment:
    wanted = container.wanted_replicas
    if present is None and wanted != 1:
        manifest = manifests.deployment(container, paused=True)
        await _apply(client, DEPLOYMENTS, manifest, drift, repair=repair)
        await _scale(client, container, wanted)
    elif present is not None and _must_scale(container, present, repair=repair):
        await _scale(client, container, wanted)
    manifest = manifests.deployment(container, replicas_set=wanted)
    applied = await _apply(client, DEPLOYMENTS, manifest, drift, repair=repair)
    if applied is not None:
        return applied
    found = await client.find(DEPLOYMENTS, container.kubernetes_namespace, container.kubernetes_name)
    return found or Deployment()


def _must_scale(container: Container, present: Deployment, *, repair: bool) -> bool:
    wanted = container.wanted_replicas
    if present.metadata.annotation(manifests.REPLICAS_SET) != str(wanted):
        return True
    return repair and wanted == 0 and present.spec.replicas != 0


async def _scale(client: LeasedClient, container: Container, replicas: int) -> None:
    await client.set_scale(DEPLOYMENTS, container.kubernetes_namespace, container.kubernetes_name, replicas)


async def _apply(
    client: LeasedClient, resource: Resource[T], manifest: Manifest, drift: _Drift, *, repair: bool
) -> T | None:
    """Apply, and meet others' fields as the policy says; None where they were left to them."""
    try:
        return await client.apply(resource, manifest)
    except Conflict as conflict:
        if not conflict.fields:
            raise
        drift.note(manifest, conflict)
        return await client.apply(resource, manifest, force=True) if repair else None


def _is_ours(container: Container, found: KubernetesObject) -> bool:
    return found.metadata.label(manifests.CONTAINER_UID) == container.uid


def _check_ours(container: Container, kind: str, found: KubernetesObject) -> None:
    if not _is_ours(container, found):
        where = f"{container.kubernetes_namespace}/{found.metadata.name}"
        raise Conflict(
            f"{kind} {where} exists and does not belong to this container", status_reason="NameTaken"
        )


def _applied(status: str, reason: str, message: str) -> Condition:
    return msgspec.convert(
        {"type": APPLIED, "status": status, "reason": reason, "message": message}, Condition
    )


def namespace_is_leaving(error: Exception) -> bool:
    """Whether the cluster refused because the namespace is being deleted."""
    return isinstance(error, Forbidden) and error.namespace_terminating
