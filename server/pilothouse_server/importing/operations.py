"""Takes over existing workloads of a Kubernetes namespace without restarting a pod.

    discover (outside any transaction): converts each workload; a dry run shows the changes of a first apply
    create (one transaction): inserts a row for each importable workload, and work for the reconciler, which
        sets the label

The same call takes over the claims that the pods mount, and the config maps and secrets that they read
(`dependencies`). Each workload is imported together with its own dependencies, or not at all.

A workload that the model cannot represent stays as it is, and the response has the reasons. If the platform's apply
would change the pods of a workload that the model can represent, the workload is imported with the drift policy REPORT,
and the reconciler leaves out the fields that differ. A Service whose meaning the platform's apply would change is left
alone, and its ports do not become the container's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from pilothouse_manifests.cron_jobs import ALLOW
from pilothouse_server.authorization.access import May
from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.containers import (
    admission,
    guarding,
    manifests,
    operations,
    rules,
)
from pilothouse_server.containers.job_status import most_concurrent
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import CronJobSettings, WorkloadKind
from pilothouse_server.containers.workloads import WORKLOADS, WorkloadType, workload_type
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import FailedPrecondition, PilothouseError
from pilothouse_server.guard.model import PRIVILEGED, Keys
from pilothouse_server.importing import dependencies, unfit
from pilothouse_server.importing.dependencies import Created, Dependencies, Discovered, Existing
from pilothouse_server.importing.deployments import (
    Converted,
    convert,
    selects,
    with_volume_names,
    without_services,
)
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError, NotFound, Refused, Unreadable
from pilothouse_server.kubernetes.namespace_ownership import is_foreign, refuse_foreign
from pilothouse_server.kubernetes.objects import (
    SERVICE_ACCOUNTS,
    SERVICES,
    Manifest,
    OwnerReference,
    WorkloadObject,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.kubernetes.set_objects import CRON_JOBS
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS, claim
from pilothouse_server.store.unit_of_work import Transaction

log = structlog.get_logger(__name__)

# The errors of a malformed description, such as a number instead of a list, which no API server accepts.
SHAPELESS = (AttributeError, LookupError, TypeError, ValueError, msgspec.MsgspecError, Unreadable)
UNREADABLE = ("the cluster's description of it cannot be read",)
# Number of unreadable Services that a response names.
_MOST_UNREAD = 10
# Seconds for the discovery, because each workload needs a few calls to the cluster.
SECONDS = 60.0
# An import right after a namespace's adoption was requested waits until the namespace has been adopted.
ADOPTION_SECONDS, _LOOK_SECONDS = 5.0, 0.1


class Candidate(msgspec.Struct, frozen=True):
    """An examined workload. `container`: None if it is not imported; `problems` are then the reasons.

    `deployment`: its name on the cluster. `notes`: remarks on a workload that is imported. `created`: the objects of
    `discovered` that were created with it. `uid`: the uid that an orphan keeps; empty for a new one. `runs_of`: the
    name of the CronJob that this workload is a run of.
    """

    deployment: str
    container: Container | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    discovered: Discovered = Discovered()
    created: Created = Created()
    uid: str = ""
    kind: WorkloadKind = "deployment"
    runs_of: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """Selects workloads: those of these names and kinds; without names, all of these kinds without an owner."""

    names: Sequence[str] = ()
    selector: str = ""
    kinds: Sequence[WorkloadKind] = ("deployment",)


async def discover(
    connect: Connect,
    namespace: Namespace,
    wanted: Wanted,
    existing: Existing,
    may: May,
    orphans: Collection[str] = (),
) -> list[Candidate]:
    """Returns the wanted workloads as they would be taken over.

    `existing`: the objects that the namespace already has. `may`: whether the caller has a permission in the namespace.
    `orphans`: uids of objects that may be taken over although they carry the platform's label.

    Raises:
        Unavailable: the cluster does not respond in time.
        FailedPrecondition: the cluster denies reading.
    """
    cluster = namespace.cluster_name
    try:
        client = await connect(cluster)
        await within(wait_for_namespace(client, namespace), cluster)
        theirs = Dependencies(client, namespace, existing, may, orphans)
        return await within(_discover(client, namespace, wanted, theirs), cluster, SECONDS)
    except ClusterError as error:
        raise refusal(error, cluster) from error


async def wait_for_namespace(client: ClusterClient, namespace: Namespace) -> None:
    """Waits while a Kubernetes namespace is being adopted.

    Raises Conflict `NameTaken` if it still belongs to another owner.
    """
    waited = 0.0
    while namespace.adopted and waited < ADOPTION_SECONDS and await is_foreign(client, namespace.ref):
        await asyncio.sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
    await refuse_foreign(client, namespace.ref)


async def create(
    transaction: Transaction,
    namespace_name: str,
    candidates: Sequence[Candidate],
    envelopes: Envelopes,
    keys: Keys,
    may: May,
) -> list[Candidate]:
    """Creates the containers that can be created, each independently. Returns all candidates with their rows.

    Raises:
        NotFound: the namespace.
        FailedPrecondition: the namespace is inactive or being deleted.
    """
    namespace = await admission.locked_namespace(transaction, namespace_name)
    refuse_inactive_namespace(namespace)
    taken = []
    for candidate in candidates:
        if candidate.container is not None:
            try:
                async with transaction.attempt():
                    candidate = await _create(
                        transaction, namespace, candidate, candidate.container, envelopes, keys, may
                    )
            except PilothouseError as error:
                candidate = refused(candidate, error_words(error))
        taken.append(candidate)
    return taken


def without_guarded(candidate: Candidate, keys: Keys) -> Candidate:
    """Returns the candidate without those keys of its objects that only some callers may set.

    The keys stay on the objects, owned by others. Pods keep such keys as well, so `create` refuses a workload whose
    pods have keys that the caller may not set.
    """
    if candidate.container is None:
        return candidate
    container = guarding.without_guarded(candidate.container, keys)
    return msgspec.structs.replace(candidate, container=container)


def record(taken: Sequence[Candidate]) -> dict[str, Any]:
    """Returns the facts that the audit record stores about an import: only names."""
    made = [item.created for item in taken if item.container is not None]
    return {
        "imported": [item.deployment for item in taken if item.container is not None],
        "volumes": [name for each in made for name in each.volumes],
        "config_maps": [name for each in made for name in each.config_maps],
        "secrets": [name for each in made for name in each.secrets],
    }


async def _create(
    transaction: Transaction,
    namespace: Namespace,
    candidate: Candidate,
    container: Container,
    envelopes: Envelopes,
    keys: Keys,
    may: May,
) -> Candidate:
    names, created = await dependencies.create(transaction, namespace, candidate.discovered, envelopes)
    _refuse_alike(container, names)
    wanted = msgspec.structs.replace(
        with_volume_names(container, names),
        uid="",
        namespace_ref=namespace.ref,
    )
    stored = await operations.create(
        transaction, namespace.name, wanted, keys=keys, may=may, uid=candidate.uid
    )
    return msgspec.structs.replace(candidate, container=stored, created=created)


def _refuse_alike(container: Container, names: Mapping[str, str]) -> None:
    """Raises FailedPrecondition if a mount could refer to either of two volumes."""
    for name in sorted(container.spec.own_volumes):
        if name in names.values():
            raise FailedPrecondition(
                f'the pods mount volume "{name}", and also have a volume of their own with this name',
                reason="VOLUME_NAME_TAKEN",
                metadata={"volume": name},
            )


class _Listed(msgspec.Struct, frozen=True):
    """The workloads of one kind in a Kubernetes namespace. `odd`: names of unreadable ones."""

    type_: WorkloadType
    there: Mapping[str, WorkloadObject]
    odd: Sequence[str]


async def _discover(
    client: ClusterClient, namespace: Namespace, wanted: Wanted, theirs: Dependencies
) -> list[Candidate]:
    where = namespace.kubernetes_name
    listed = [await _listed(client, WORKLOADS[kind], where, wanted.selector) for kind in wanted.kinds]
    names = [(each, name) for each in listed for name in _names(each, wanted.names)]
    known = {name for _, name in names}
    found = [
        Candidate(name, problems=(f"there is no such {' or '.join(each.type_.kind for each in listed)}",))
        for name in dict.fromkeys(wanted.names)
        if name not in known
    ]
    services, unread = await _services(client, where) if names else ([], ())
    shared = _shared(services, [workload for each in listed for workload in each.there.values()])
    for each, name in names:
        try:
            candidate = await _candidate(client, namespace, each.type_, name, services, shared, theirs)
        except SHAPELESS as error:
            log.warning(
                "a workload cannot be read",
                cluster=namespace.cluster_name,
                kind=each.type_.kind,
                error=type(error).__name__,
            )
            candidate = Candidate(name, problems=UNREADABLE)
        # The malformed part may be one that is not taken over, such as the status. But the platform could not observe
        # such a workload.
        if name in each.odd and not candidate.problems:
            candidate = refused(candidate, UNREADABLE)
        if candidate.container is not None:
            candidate = msgspec.structs.replace(candidate, notes=(*candidate.notes, *unread))
        found.append(msgspec.structs.replace(candidate, kind=each.type_.name))
    order = {name: number for number, name in enumerate(dict.fromkeys(wanted.names))}
    return sorted(found, key=lambda candidate: order.get(candidate.deployment, 0))


async def _listed(client: ClusterClient, type_: WorkloadType, where: str, selector: str) -> _Listed:
    page = await client.list(type_.resource, where, label_selector=selector)
    there = {item.metadata.name: item for item in page.items}
    return _Listed(type_, there, [name for _, name in page.left_out if name])


def _names(listed: _Listed, names: Sequence[str]) -> Sequence[str]:
    """Returns the names to import: the given ones that exist, or those of all objects without an owner."""
    if names:
        return [name for name in dict.fromkeys(names) if name in listed.there or name in listed.odd]
    nobodys = [
        name
        for name, item in listed.there.items()
        if not item.metadata.label(CONTAINER_UID) and not _is_run(item.metadata.owner_references)
    ]
    return [*nobodys, *listed.odd]


def _is_run(owners: Iterable[OwnerReference]) -> bool:
    """Returns whether an object is a run of a CronJob: a Job that the CronJob controls."""
    return any(owner.kind == CRON_JOBS.kind and owner.controller for owner in owners)


async def _services(client: ClusterClient, where: str) -> tuple[list[Manifest], tuple[str, ...]]:
    """Returns the Services of a Kubernetes namespace as whole JSON, and remarks on unreadable ones.

    Unreadable Services are left alone, whichever pods they select.
    """
    services: list[Manifest] = []
    unread: list[str] = []
    page = await client.list(SERVICES, where)
    for name in [*(listed.metadata.name for listed in page.items), *(name for _, name in page.left_out)]:
        try:
            if not name:
                raise Unreadable("it has no name")
            service = await client.read(SERVICES, where, name)
            if service["metadata"]["name"] != name or selects(service, {}):
                raise Unreadable("it is none")
        except NotFound:
            # The Service was deleted after it was listed.
            continue
        except SHAPELESS as error:
            log.warning("a Service cannot be read", cluster=client.name, error=type(error).__name__)
            unread.append(name or "without a name")
            continue
        services.append(service)
    told = [f"Service {name}: it cannot be read, but may select the pods" for name in unread]
    rest = len(told) - _MOST_UNREAD
    return services, (*told[:_MOST_UNREAD], *((f"{rest} more Services cannot be read",) if rest > 0 else ()))


def _shared(services: Sequence[Manifest], workloads: Collection[WorkloadObject]) -> dict[str, str]:
    """Returns the Services that select the pods of several workloads, which no single container can own."""
    shared: dict[str, str] = {}
    for service in services:
        selector = service.get("spec", {}).get("selector") or {}
        owners = [
            workload.metadata.name
            for workload in workloads
            if selector and selector.items() <= (workload.pod_template.metadata.labels or {}).items()
        ]
        if len(owners) > 1:
            shared[service["metadata"]["name"]] = f"it selects the pods of {', '.join(sorted(owners))}"
    return shared


async def _candidate(
    client: ClusterClient,
    namespace: Namespace,
    type_: WorkloadType,
    name: str,
    services: Sequence[Manifest],
    shared: dict[str, str],
    theirs: Dependencies,
) -> Candidate:
    may = theirs.may
    live = await client.read(type_.resource, namespace.kubernetes_name, name)
    if unfit_for_rows := unfit.problems(live):
        return Candidate(name, problems=tuple(unfit_for_rows))
    owners = msgspec.convert(live["metadata"].get("ownerReferences") or [], list[OwnerReference])
    if _is_run(owners):
        words = f"it is a run of CronJob {owners[0].name}: import the CronJob"
        return Candidate(name, problems=(f"metadata.ownerReferences: {words}",), runs_of=owners[0].name)
    converted = convert(live, services, theirs.orphans)
    if converted.problems:
        return Candidate(name, problems=converted.problems)
    own_uid = converted.container.uid
    converted = without_services(converted, _of(converted, shared))
    with_theirs, found, problems = await theirs.discover(converted)
    problems += await _foreign_account(client, namespace, with_theirs, may)
    if problems:
        return Candidate(name, problems=problems)
    try:
        # The container has no uid yet; no rule depends on it.
        container = rules.checked(_named(with_theirs, namespace))
    except PilothouseError as error:
        return Candidate(name, problems=tuple(error_words(error)))
    try:
        changed = await _changed_by_apply(client, container, live)
        reasons = await _unlike_services(client, container, services)
        await _try_claims(client, namespace, found)
    except Refused as error:
        return Candidate(name, problems=(f"the cluster refuses it: {error.message}",))
    converted = without_services(msgspec.structs.replace(converted, container=container), reasons)
    container = converted.container
    notes = [
        *converted.left_alone,
        *(f"{path}: stored in extra_fields" for path in container.spec.extra_fields),
        *(
            f"{path}: stays on the cluster; a recreated workload would not have it"
            for path in converted.left_there
        ),
        *_limits(container),
    ]
    if changed:
        container = msgspec.structs.replace(container, drift_policy="report")
        notes.insert(0, f"drift policy REPORT: repairing would change its pods: {', '.join(changed)}")
    return Candidate(name, container, notes=tuple(notes), discovered=found, uid=own_uid)


def _limits(container: Container) -> Iterator[str]:
    """Yields the limits that the platform sets and the workload did not have."""
    settings = container.spec.workload
    if isinstance(settings, CronJobSettings) and settings.concurrency in ("", ALLOW):
        yield (
            f"spec.concurrencyPolicy: {ALLOW}, up to {most_concurrent(settings)} active runs "
            "(cron_job.max_concurrent); at this limit, the CronJob is suspended"
        )


async def _foreign_account(
    client: ClusterClient, namespace: Namespace, container: Container, may: May
) -> tuple[str, ...]:
    """Returns why the pods may not use their service account: the platform does not know its rights."""
    name = container.spec.service_account
    if name in ("", "default") or may(PRIVILEGED):
        return ()
    found = await client.find(SERVICE_ACCOUNTS, namespace.kubernetes_name, name)
    if found is None or manifests.is_our_account(found, namespace.uid):
        return ()
    return (
        f"spec.template.spec.serviceAccountName: the platform does not have service account {name}: permission "
        f'{PRIVILEGED} is needed in namespace "{namespace.name}", from a grant over all namespaces, to import it',
    )


def _of(converted: Converted, reasons: dict[str, str]) -> dict[str, str]:
    taken_over = converted.container.spec.taken_over
    names = {service.name for service in taken_over.services} if taken_over else set()
    return {name: why for name, why in reasons.items() if name in names}


def _named(container: Container, namespace: Namespace) -> Container:
    return msgspec.structs.replace(
        container,
        uid=container.uid or str(uuid4()),
        namespace_ref=namespace.ref,
    )


async def _changed_by_apply(client: ClusterClient, container: Container, live: Manifest) -> list[str]:
    """Returns the fields of the pod template that the platform's apply would change; empty if it changes none.

    Raises Refused.
    """
    manifest = manifests.workload(container, replicas_set=container.wanted_replicas)
    after = await client.dry_run(workload_type(container).resource, manifest, force=True)
    steps = workload_type(container).template
    if _template(after, steps) == _template(live, steps):
        return []
    template = "".join(f".{step}" for step in steps)
    paths = [path for path in field_paths.differing(manifest, live, after) if path.startswith(template)]
    return paths or [template]


def _template(workload: Manifest, steps: Sequence[str]) -> Manifest:
    """Returns the pod template without the label that a CronJob gets, because the label changes no existing pod."""
    found: Manifest = workload
    for step in steps:
        found = found[step]
    metadata = dict(found.get("metadata") or {})
    metadata["labels"] = {
        key: text for key, text in (metadata.get("labels") or {}).items() if key != CONTAINER_UID
    }
    return {**found, "metadata": {key: value for key, value in metadata.items() if value}}


async def _try_claims(client: ClusterClient, namespace: Namespace, found: Discovered) -> None:
    """Raises Refused if the cluster would not accept a claim in the form that the platform applies."""
    for volume, is_new in found.volumes:
        if volume.is_claim and is_new:
            tried = msgspec.structs.replace(volume, uid=str(uuid4()), namespace_ref=namespace.ref)
            await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(tried), force=True)


async def _unlike_services(
    client: ClusterClient, container: Container, services: Sequence[Manifest]
) -> dict[str, str]:
    """Returns the Services that the platform's apply would change, and why."""
    there = {service["metadata"]["name"]: service for service in services}
    unlike: dict[str, str] = {}
    for manifest in manifests.services(container):
        name = manifest["metadata"]["name"]
        try:
            after = await client.dry_run(SERVICES, manifest, force=True)
        except Refused as error:
            unlike[name] = error.message
            continue
        if after["spec"] != there[name]["spec"]:
            changed = ", ".join(field_paths.differing(manifest, there[name], after))
            unlike[name] = f"an apply would change {changed or '.spec'}"
    return unlike


def refused(candidate: Candidate, problems: Sequence[str]) -> Candidate:
    """Returns the candidate as one that is not imported, with the reason."""
    return msgspec.structs.replace(
        candidate, container=None, problems=tuple(problems), notes=(), created=Created()
    )


def error_words(error: PilothouseError) -> list[str]:
    if error.violations:
        return [f"{violation.field}: {violation.description}" for violation in error.violations]
    return [error.message]
