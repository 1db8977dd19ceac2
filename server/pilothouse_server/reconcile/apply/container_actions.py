"""Steps on a cluster that apply one container there, or delete it.

Every step may be the last one before a kill, and every step may be repeated: objects are applied by server-side apply
and found again by name and our label; deletions name the uid. No state is stored outside the cluster and the database.

The apply does not contain replicas, see `replicas`; `drift` handles changes by others. A Deployment that must not start
with one pod (the API's default) is created paused, scaled, and released by the next apply. A Deployment whose rollout
is held is paused once its first rollout has begun.

An imported workload does not carry our label before the first apply, which must not touch its pods: that apply handles
every difference as REPORT does.

Most containers are new when they are acted on, in batches; new containers cost as few requests as possible (`make`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pilothouse_server.containers import external_sources, guarding, manifests
from pilothouse_server.containers.drift_rules import DEFAULT_RULES, DriftRules
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.rollout import is_outrun
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.importing import drift_adoption
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.errors import (
    NAME_TAKEN,
    Conflict,
    Invalid,
    TooManyValues,
)
from pilothouse_server.kubernetes.events import Warned
from pilothouse_server.kubernetes.objects import (
    SERVICE_ACCOUNTS,
    SERVICES,
    KubernetesObject,
    Resource,
    Service,
    WorkloadObject,
)
from pilothouse_server.kubernetes.ownership import (
    CONTAINER_UID,
    MANAGED_BY,
    MANAGER,
    NAMESPACE_UID,
    OBJECT_UID,
)
from pilothouse_server.reconcile.apply import (
    cron_jobs,
    jobs,
    others_acts,
    replicas,
    service_writer,
    stateful_sets,
)
from pilothouse_server.reconcile.apply.drift import NOTHING, Drift
from pilothouse_server.reconcile.apply.row_reconciler import AGAIN_SECONDS, waiting
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Progress
from pilothouse_server.values.resources import Condition

# How soon to check again a source or Service that is missing or not the platform's: it may be imported until then.
_SOURCE_AGAIN_SECONDS = 5.0


class Adoption(msgspec.Struct, frozen=True):
    """Values that become desired because others set them, and their description for the history."""

    wanted: Container
    description: str


class ContainerProgress(Progress, frozen=True):
    """`workload` as the cluster returned it last; `conditions` of the apply and of drift.

    `history`: further lines for the history. `went_back`: the cluster was restored to a state before the last apply.
    """

    workload: WorkloadObject | None = None
    went_back: bool = False
    conditions: tuple[Condition, ...] = ()
    adoption: Adoption | None = None
    history: tuple[Warned, ...] = ()


async def make(client: LeasedClient, container: Container) -> ContainerProgress | None:
    """Creates the objects of a new container without reading them first.

    That costs one request for the workload, and two for each Service. If another owner has a workload of this name, the
    apply is refused, because no other workload has our selector. A Service has no such protection, so its name is read
    first. Returns None if anything differs from a new container: then `apply` reads everything. Raises ClusterError,
    LeaseLost.
    """
    namespace, wanted = container.kubernetes_namespace, container.wanted_replicas
    if container.spec.service_account or container.hold_rollout:
        return None
    if await external_sources.refuse_on_cluster(client, container):
        return None
    type_ = workload_type(container)
    if type_.services_first or not type_.scales:
        return None
    services = manifests.services(container)
    for manifest in services:
        if await client.find(SERVICES, namespace, manifest["metadata"]["name"]) is not None:
            return None
    admitted = guarding.may_be_sent(container)
    try:
        if wanted != 1:
            await client.apply(type_.resource, manifests.workload(container, held=True), admitted)
            await replicas.set_scale(client, container, wanted)
        manifest = manifests.workload(container, replicas_set=wanted)
        workload = await client.apply(type_.resource, manifest, admitted)
    except (Conflict, Invalid):
        return None
    if workload.metadata.deletion_timestamp is not None or workload.replicas != wanted:
        return None
    applied = [(SERVICES, await client.apply(SERVICES, manifest, admitted)) for manifest in services]
    conditions = (
        Condition(APPLIED, "True", "Applied"),
        Drift(container, admitted, settled=False).condition(),
    )
    objects = fingerprints.by_object((type_.resource, workload), *applied) | others_acts.restart_mark(
        workload
    )
    return ContainerProgress(workload=workload, conditions=conditions, objects=objects)


async def apply(
    client: LeasedClient,
    container: Container,
    noted: Mapping[str, str] = NOTHING,
    rules: DriftRules = DEFAULT_RULES,
) -> ContainerProgress:
    """Applies the container's objects, unless nothing new is desired and all of them match.

    `noted`: the fingerprints of its objects at the last apply. `rules`: permitted additions by others. Raises
    ClusterError (Conflict `NameTaken` if an object belongs to another owner) and LeaseLost.
    """
    type_ = workload_type(container)
    workload = await client.find(type_.resource, container.kubernetes_namespace, container.kubernetes_name)
    if (deleting := await _met(client, container, workload)) is not None:
        return deleting
    drift = _drift(container, workload, noted, rules)
    went_back = workload is not None and _went_back(container, workload, drift)
    account = await _apply_service_account(client, container)
    if type_.runs and (ended := await _ended_run(client, container, workload, drift)) is not None:
        return msgspec.structs.replace(ended, objects={**(ended.objects or {}), **account})
    restarts = await others_acts.restarts(client, type_, workload, noted)
    unchanged = await _unchanged(client, container, workload, drift)
    if unchanged is not None:
        objects = {**(unchanged.objects or {}), **account}
        acts = await _release(client, container, workload, drift)
        return msgspec.structs.replace(
            unchanged, went_back=went_back, objects=objects, history=restarts + acts
        )
    if why := await external_sources.refuse_on_cluster(client, container):
        return ContainerProgress(
            workload=workload,
            again_seconds=_SOURCE_AGAIN_SECONDS,
            conditions=(waiting("NotThePlatforms", why),),
            objects=account,
        )
    services = await _apply_services(client, container, drift)
    if workload is None and (name := await stateful_sets.missing_service(client, container)):
        why = f"Service {name}, which gives its pods their names, does not exist"
        return ContainerProgress(
            again_seconds=_SOURCE_AGAIN_SECONDS, conditions=(waiting("WaitingForService", why),)
        )
    workload, acts = await stateful_sets.replace(client, container, workload, drift)
    if workload is not None and workload.metadata.deletion_timestamp is not None:
        return ContainerProgress(workload=workload, again_seconds=AGAIN_SECONDS)
    begins = container.hold_rollout and not _is_held(container, workload)
    workload, decided = await _apply_workload(client, container, workload, drift)
    acts += await _release(client, container, workload, drift)
    adopted = await _adopt(client, container, drift, decided)
    conditions = [Condition(APPLIED, "True", "Applied"), drift.condition()]
    if decided.condition is not None:
        conditions.append(decided.condition)
    repaired, recreations = others_acts.recreated(drift.recreated)
    objects = fingerprints.by_object((type_.resource, workload), *services) | account
    objects |= others_acts.restart_mark(workload)
    return ContainerProgress(
        workload=workload,
        again_seconds=AGAIN_SECONDS if begins else None,
        conditions=(*conditions, *repaired),
        adoption=adopted,
        history=restarts + recreations + acts,
        objects=objects,
        went_back=went_back,
    )


async def _met(
    client: LeasedClient, container: Container, workload: WorkloadObject | None
) -> ContainerProgress | None:
    """Returns the progress if the workload is being deleted, else None.

    Raises Conflict if the workload is not ours.
    """
    if workload is not None:
        kind = workload_type(container).kind
        _check_ours(container, kind, workload)
        if workload.metadata.deletion_timestamp is not None:
            # Another client is deleting it; an apply would succeed and be lost. It is created again once it is deleted.
            return ContainerProgress(
                workload=workload,
                conditions=(waiting("Deleting", f"the {kind} is being deleted"),),
                again_seconds=AGAIN_SECONDS,
            )
    elif container.observed_generation > 0:
        # It existed before: if it was deleted with its namespace, it is not put into another one of that name.
        await client.check_namespace_ownership(container.namespace_ref)
    return None


async def _ended_run(
    client: LeasedClient, container: Container, job: WorkloadObject | None, drift: Drift
) -> ContainerProgress | None:
    """Returns the progress if the newest run of a Job has ended, else None."""
    applied = Condition(APPLIED, "True", "Applied")
    if jobs.has_ended(container, job):
        services = await _apply_services(client, container, drift)
        there = () if job is None else ((workload_type(container).resource, job),)
        return ContainerProgress(
            workload=job,
            conditions=(applied, drift.condition()),
            objects=fingerprints.by_object(*there, *services),
        )
    end = jobs.lost(container, job)
    return None if end is None else ContainerProgress(conditions=(applied, end))


def _may_match(container: Container, workload: WorkloadObject) -> bool:
    """Returns whether a workload may be in its desired state, judged by the fields that are read."""
    type_ = workload_type(container)
    if type_.runs:
        return jobs.agrees(container, workload)
    return type_.scheduled or workload.replicas == container.wanted_replicas


def _went_back(container: Container, workload: WorkloadObject, drift: Drift) -> bool:
    """Returns whether the workload on the cluster is older than a state that was seen or applied before.

    Versions alone do not show it: after a restore the cluster writes the object's status, with newer versions.
    """
    name, kind = workload.metadata.name, workload_type(container).kind
    if is_outrun(container, workload):
        drift.note_older(kind, name)
    return drift.is_older(kind, name, workload.metadata.resource_version)


def _drift(
    container: Container,
    workload: WorkloadObject | None,
    noted: Mapping[str, str],
    rules: DriftRules,
) -> Drift:
    settled = container.observed_generation >= container.generation
    if container.imported and workload is not None:
        if workload.metadata.label(CONTAINER_UID) != container.uid:
            return Drift(
                container, guarding.may_be_sent(container), policy="report", settled=True, rules=rules
            )
        # Generation 1 is the imported state: nothing was requested since.
        settled = settled or container.generation == 1
    return Drift(container, guarding.may_be_sent(container), settled=settled, noted=noted, rules=rules)


async def _unchanged(
    client: LeasedClient, container: Container, workload: WorkloadObject | None, drift: Drift
) -> ContainerProgress | None:
    """Returns the progress if reads show that everything matches; None if something must be applied.

    The fingerprints are of the state before the comparison, so they reveal later changes by others.
    """
    if workload is None or not drift.settled or workload.metadata.label(CONTAINER_UID) != container.uid:
        return None
    type_ = workload_type(container)
    if not _may_match(container, workload):
        return None
    namespace, selector = container.kubernetes_namespace, f"{CONTAINER_UID}={container.uid}"
    services = [(SERVICES, each) for each in await client.list(SERVICES, namespace, selector)]
    wanted = manifests.services(container)
    if len(services) != len(wanted):
        return None
    for manifest in wanted:
        if not await drift.is_untouched(client, SERVICES, manifest):
            return None
    manifest = manifests.workload(container, replicas_set=_replicas_set(container))
    if type_.scheduled:
        manifest = await cron_jobs.manifest_now(client, container, workload)
    if type_.states_replicas:
        manifest = await stateful_sets.own_replicas(client, container, manifest)
    if not await drift.is_untouched(client, type_.resource, manifest):
        return None
    conditions = [Condition(APPLIED, "True", "Applied"), drift.condition()]
    # An autoscaler may have been deleted.
    if (
        type_.rolls_out
        and (scaled := (await replicas.decide(client, container, workload, drift)).condition) is not None
    ):
        conditions.append(scaled)
    objects = fingerprints.by_object((type_.resource, workload), *services) | others_acts.restart_mark(
        workload
    )
    return ContainerProgress(workload=workload, conditions=tuple(conditions), objects=objects)


async def delete(
    client: LeasedClient, container: Container, *, keep_service_account: bool
) -> ContainerProgress:
    """Deletes the container's objects.

    The progress is `gone` once none is left. Raises ClusterError, LeaseLost.
    """
    home = container.namespace_ref
    services_left = await _delete_services(client, container)
    if workload_type(container).runs and await jobs.delete_all(client, container):
        return ContainerProgress(again_seconds=AGAIN_SECONDS)
    workload = await _workload_to_delete(client, container)
    if workload is not None and manifests.is_ours(container, workload):
        if workload.metadata.deletion_timestamp is None:
            await client.delete(
                workload_type(container).resource, home, container.kubernetes_name, uid=workload.metadata.uid
            )
        return ContainerProgress(workload=workload, again_seconds=AGAIN_SECONDS)
    if workload_type(container).scheduled and await jobs.delete_all(client, container):
        # The cluster itself deletes the Jobs that the CronJob owned.
        return ContainerProgress(again_seconds=AGAIN_SECONDS)
    if services_left:
        # A load balancer's finalizer can keep a Service for minutes; until then its name is not free.
        return ContainerProgress(again_seconds=AGAIN_SECONDS)
    if not keep_service_account and container.spec.service_account:
        await _delete_service_account(client, container)
    return ContainerProgress(gone=True)


async def _delete_services(client: LeasedClient, container: Container) -> bool:
    """Deletes the Services of the container; returns whether any was left."""
    namespace, selector = container.kubernetes_namespace, f"{CONTAINER_UID}={container.uid}"
    services = {
        service.metadata.name: service for service in await client.list(SERVICES, namespace, selector)
    }
    for manifest in manifests.services(container):
        name = manifest["metadata"]["name"]
        found = None if name in services else await client.find(SERVICES, namespace, name)
        if found is not None and manifests.is_ours(container, found):
            services[name] = found
    home = container.namespace_ref
    for name, service in services.items():
        if service.metadata.deletion_timestamp is None:
            await client.delete(SERVICES, home, name, uid=service.metadata.uid, propagation="Background")
    return bool(services)


async def _workload_to_delete(client: LeasedClient, container: Container) -> WorkloadObject | None:
    """Returns the workload with the container's name.

    If it has more values than are read, and our label, only its metadata is returned.
    """
    type_ = workload_type(container)
    where = container.kubernetes_namespace, container.kubernetes_name
    try:
        return await client.find(type_.resource, *where)
    except TooManyValues:
        found = await client.find(type_.metadata, *where)
        if found is not None and found.metadata.label(CONTAINER_UID) != container.uid:
            # Nothing shows that it is ours.
            raise
        return None if found is None else WorkloadObject(metadata=found.metadata)


async def _apply_service_account(client: LeasedClient, container: Container) -> dict[str, str]:
    """Creates the service account if it is missing; returns its fingerprint if it is ours."""
    manifest = manifests.service_account(container)
    if manifest is None:
        return {}
    found = await client.find(
        SERVICE_ACCOUNTS, container.kubernetes_namespace, container.spec.service_account
    )
    if found is None:
        found = await client.apply(SERVICE_ACCOUNTS, manifest, guarding.may_be_sent(container))
    else:
        guarding.refuse_account(container, found)
    return (
        fingerprints.by_object((SERVICE_ACCOUNTS, found))
        if found.metadata.label(MANAGED_BY) == MANAGER
        else {}
    )


async def _delete_service_account(client: LeasedClient, container: Container) -> None:
    name = container.spec.service_account
    found = await client.find(SERVICE_ACCOUNTS, container.kubernetes_namespace, name)
    if found is None or found.metadata.label(MANAGED_BY) != MANAGER or found.metadata.label(OBJECT_UID):
        return
    # An object of another installation, or of our earlier namespace, differs only in its uid.
    if found.metadata.label(NAMESPACE_UID) == container.namespace_uid:
        await client.delete(SERVICE_ACCOUNTS, container.namespace_ref, name, uid=found.metadata.uid)


async def _apply_services(
    client: LeasedClient, container: Container, drift: Drift
) -> list[tuple[Resource[Service], Service]]:
    """Applies the container's Services, and returns them as the cluster then has them."""
    home, namespace = container.namespace_ref, container.kubernetes_namespace
    selector = f"{CONTAINER_UID}={container.uid}"
    present = {service.metadata.name: service for service in await client.list(SERVICES, namespace, selector)}
    wanted = manifests.services(container)
    applied = []
    for manifest in wanted:
        name = manifest["metadata"]["name"]
        found = present.get(name) or await client.find(SERVICES, namespace, name)
        if found is not None:
            _check_service_ours(container, found)
        applied.append((SERVICES, await service_writer.write(client, home, manifest, found, drift)))
    names = {manifest["metadata"]["name"] for manifest in wanted}
    for name, service in present.items():
        if name not in names:
            await client.delete(SERVICES, home, name, uid=service.metadata.uid)
    return applied


async def _apply_workload(
    client: LeasedClient, container: Container, present: WorkloadObject | None, drift: Drift
) -> tuple[WorkloadObject, replicas.Replicas]:
    type_, wanted = workload_type(container), container.wanted_replicas
    decided, held = replicas.Replicas(), _is_held(container, present)
    if type_.runs:
        return await jobs.write(client, container, present, drift), decided
    if type_.scheduled:
        return await cron_jobs.write(client, container, present, drift), decided
    if type_.per_node:
        decided = replicas.by_nodes(container, present)
        manifest = manifests.workload(container, held=held)
        return await drift.apply(client, type_.resource, manifest, present=present is not None), decided
    if present is None and type_.states_replicas:
        manifest = manifests.first(container)
        return await drift.apply(client, type_.resource, manifest, present=False), decided
    if present is None and wanted != 1:
        manifest = manifests.workload(container, held=True)
        await drift.apply(client, type_.resource, manifest, present=False)
        await replicas.set_scale(client, container, wanted)
    elif present is not None:
        decided = await replicas.decide(client, container, present, drift)
        if decided.scale is not None:
            await stateful_sets.before_scale(client, container, present, decided.scale, drift)
            await replicas.set_scale(client, container, decided.scale)
    manifest = manifests.workload(container, replicas_set=wanted, held=held)
    if not type_.states_replicas:
        return await drift.apply(client, type_.resource, manifest, present=present is not None), decided
    manifest = await stateful_sets.own_replicas(client, container, manifest)
    try:
        return await drift.apply(client, type_.resource, manifest, present=True), decided
    except Invalid as refusal:
        raise await stateful_sets.explained(client, manifest, refusal) from None


async def _release(
    client: LeasedClient, container: Container, workload: WorkloadObject | None, drift: Drift
) -> tuple[Warned, ...]:
    """Releases our stuck rollout, also after a template of others was repaired."""
    if workload is None or (drift.settled and drift.policy != "repair"):
        return ()
    return await stateful_sets.release_stuck(client, container, workload)


def _replicas_set(container: Container) -> int | None:
    """Returns the number of pods for the workload's annotation; None without rollouts."""
    return container.wanted_replicas if workload_type(container).rolls_out else None


def _is_held(container: Container, present: WorkloadObject | None) -> bool:
    """Returns whether the rollout is held now.

    A Deployment that never rolled out would get no pods at all.
    """
    return container.hold_rollout and present is not None and workload_type(container).has_rolled_out(present)


async def _adopt(
    client: LeasedClient, container: Container, drift: Drift, decided: replicas.Replicas
) -> Adoption | None:
    """Returns the desired values after the adoption of drift.

    Adopted fields no longer count as drift.
    """
    wanted, type_, words = container, workload_type(container), ""
    if decided.adopt is not None:
        wanted = msgspec.structs.replace(wanted, replicas=decided.adopt)
        if type_.per_node:
            words = f"pods on {decided.adopt} nodes"
        else:
            drift.adopted.append(f"{decided.adopt} replicas")
    mine = [difference for difference in drift.kept if difference.kind == type_.kind]
    if drift.policy == "adopt" and mine:
        live = await client.read(type_.resource, container.kubernetes_namespace, container.kubernetes_name)
        fields = [difference.field for difference in mine]
        wanted = drift_adoption.adopt_allowed(wanted, live, fields, drift.rules.guarded_keys)
        taken = [d for d in mine if drift_adoption.is_adopted(wanted, live, d.field)]
        drift.adopted += [str(difference) for difference in taken]
        drift.kept = [difference for difference in drift.kept if difference not in taken]
    return None if wanted == container else Adoption(wanted, words or drift.adopted_description)


def _is_imported(container: Container, found: KubernetesObject) -> bool:
    """Returns whether the object is the imported workload and has no owner label yet."""
    taken_over = container.spec.taken_over
    nobodys = not found.metadata.label(CONTAINER_UID)
    return nobodys and taken_over is not None and taken_over.deployment_uid == found.metadata.uid


def _check_service_ours(container: Container, found: Service) -> None:
    taken_over = container.spec.taken_over
    imported = {service.name for service in taken_over.services} if taken_over else set()
    if found.metadata.label(CONTAINER_UID) or found.metadata.name not in imported:
        _check_ours(container, "Service", found)


def _check_ours(container: Container, kind: str, found: WorkloadObject | Service) -> None:
    if not manifests.is_ours(container, found) and not _is_imported(container, found):
        where = f"{container.kubernetes_namespace}/{found.metadata.name}"
        raise Conflict(
            f"{kind} {where} exists and does not belong to this container", status_reason=NAME_TAKEN
        )
