"""Takes over existing Services of a Kubernetes namespace; they stay as they are, and only get the platform's label.

    discover (outside any transaction): converts each Service; a dry run shows the changes of a first apply
    create (one transaction): inserts a row for each importable Service, and work for the reconciler, which
        sets the label

Labels and annotations that the caller may not set stay on the object, owned by others. If the platform's first apply
would change the spec, or the model lacks a field of it, the Service is imported with the drift policy REPORT, so that
no change of others is reverted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from pilothouse_manifests.sources import FOREIGN_ANNOTATIONS
from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.errors import PilothouseError
from pilothouse_server.guard.model import PRIVILEGED
from pilothouse_server.importing import unfit
from pilothouse_server.importing.operations import (
    SECONDS,
    SHAPELESS,
    UNREADABLE,
    error_words,
    wait_for_namespace,
)
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError, NotFound, Refused
from pilothouse_server.kubernetes.objects import SERVICES, Manifest
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, DOMAIN, MANAGED_BY, MANAGER
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.network import adoption, manifests, operations, rules
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.network.model import Service
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.store.unit_of_work import Transaction

log = structlog.get_logger(__name__)

_OF_A_WORKLOAD: Final = "it is imported with the workload whose pods it selects"
_ABSENT: Final = "there is no such Service"
_MOST_KEYS: Final = 64
# Kubernetes recreates this Service, and writes its endpoints.
_OF_THE_API_SERVER: Final = ("default", "kubernetes")


class ServiceCandidate(msgspec.Struct, frozen=True):
    """An examined Service of the cluster. `service`: None if it is not imported; `problems` are then the reasons."""

    name: str
    service: Service | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Orphans(msgspec.Struct, frozen=True):
    """Uids of objects that may be taken over despite the platform's label, and names of containers by uid."""

    uids: Collection[str] = ()
    containers: Mapping[str, str] = {}


async def discover(
    connect: Connect,
    namespace: Namespace,
    names: Sequence[str],
    selector: str,
    rights: ServiceRights,
    orphans: Orphans = Orphans(),  # noqa: B008 - it is immutable
) -> list[ServiceCandidate]:
    """Returns the Services with these names, or all without an owner, as they would be taken over.

    Raises:
        Unavailable: the cluster does not respond in time.
        FailedPrecondition: the cluster denies reading.
    """
    cluster = namespace.cluster_name
    try:
        client = await connect(cluster)
        await within(wait_for_namespace(client, namespace), cluster)
        found = _discover(client, namespace, names, selector, rights, orphans)
        return await within(found, cluster, SECONDS)
    except ClusterError as error:
        raise refusal(error, cluster) from error


async def create(
    transaction: Transaction,
    namespace_name: str,
    candidates: Sequence[ServiceCandidate],
    rights: ServiceRights,
) -> list[ServiceCandidate]:
    """Creates the Services that can be created, each independently. Returns all candidates with their rows.

    Raises:
        NotFound: the namespace.
        FailedPrecondition: the namespace is inactive or being deleted.
    """
    refuse_inactive_namespace(await locate_namespace(transaction, namespace_name, "update"))
    taken = []
    for candidate in candidates:
        if candidate.service is not None:
            try:
                async with transaction.attempt():
                    stored = await operations.create(
                        transaction, namespace_name, candidate.service, rights=rights
                    )
                candidate = msgspec.structs.replace(candidate, service=stored)
            except PilothouseError as error:
                candidate = ServiceCandidate(candidate.name, problems=tuple(error_words(error)))
        taken.append(candidate)
    return taken


async def _discover(
    client: ClusterClient,
    namespace: Namespace,
    names: Sequence[str],
    selector: str,
    rights: ServiceRights,
    orphans: Orphans,
) -> list[ServiceCandidate]:
    where = namespace.kubernetes_name
    listed = await client.list(SERVICES, where, label_selector=selector)
    there = {item.metadata.name: item for item in listed.items}
    odd = [name for _, name in listed.left_out if name]
    nobodys = [
        name
        for name, item in there.items()
        if not item.metadata.label(CONTAINER_UID)
        and not item.metadata.label(SERVICE_UID)
        and (where, name) != _OF_THE_API_SERVER
    ]
    found = []
    for name in dict.fromkeys(names or [*nobodys, *odd]):
        if name in odd:
            found.append(ServiceCandidate(name, problems=UNREADABLE))
        elif name not in there:
            found.append(ServiceCandidate(name, problems=(_ABSENT,)))
        else:
            found.append(await _examined(client, namespace, name, rights, orphans))
    return found


async def _examined(
    client: ClusterClient, namespace: Namespace, name: str, rights: ServiceRights, orphans: Orphans
) -> ServiceCandidate:
    try:
        live = await client.read(SERVICES, namespace.kubernetes_name, name)
        return await _candidate(client, namespace, live, rights, orphans)
    except NotFound:
        # The Service was deleted after it was listed.
        return ServiceCandidate(name, problems=(_ABSENT,))
    except Refused as error:
        return ServiceCandidate(name, problems=(f"the cluster refuses it: {error.message}",))
    except PilothouseError as error:
        return ServiceCandidate(name, problems=tuple(error_words(error)))
    except SHAPELESS as error:
        log.warning("a Service cannot be read", cluster=client.name, error=type(error).__name__)
        return ServiceCandidate(name, problems=UNREADABLE)


async def _candidate(
    client: ClusterClient,
    namespace: Namespace,
    live: Manifest,
    rights: ServiceRights,
    orphans: Orphans,
) -> ServiceCandidate:
    name = live["metadata"]["name"]
    if problems := [*unfit.problems(live), *_standing(live["metadata"], namespace, orphans.uids)]:
        return ServiceCandidate(name, problems=tuple(problems))
    service, notes = _converted(namespace, live, rights)
    service = _by_name(service, orphans.containers)
    # The guard runs first, because the result of a dry run contains what the cluster has.
    rights.check(namespace, None, rules.checked(service))
    manifest = manifests.manifest(service)
    after = await client.dry_run(SERVICES, manifest, force=True)
    if after["spec"] != live["spec"]:
        changed = ", ".join(field_paths.differing(manifest, live, after)) or ".spec"
        notes.append(f"repairing would change {changed}")
        service = msgspec.structs.replace(service, drift_policy="report")
    if service.drift_policy == "report":
        notes.insert(0, "drift policy REPORT: changes by others are not reverted")
    return ServiceCandidate(name, service, notes=tuple(notes))


def _converted(namespace: Namespace, live: Manifest, rights: ServiceRights) -> tuple[Service, list[str]]:
    """Returns the Service in the model's form, and notes on the parts that are left to others."""
    metadata = live["metadata"]
    notes: list[str] = []
    type_, spec, odd = adoption.read_spec(live)
    notes += odd
    ours = metadata.get("labels") or {}
    labels = _kept("labels", _theirs(ours), rights, notes)
    annotations = _kept("annotations", metadata.get("annotations") or {}, rights, notes)
    service = Service(
        uid=ours.get(SERVICE_UID) or str(uuid4()),
        name=metadata["name"],
        namespace_ref=namespace.ref,
        type=type_,
        spec=spec,
        labels=labels,
        annotations=annotations,
        drift_policy="report" if odd else "repair",
        taken_over=metadata["uid"],
    )
    return service, notes


def _by_name(service: Service, containers: Mapping[str, str]) -> Service:
    """Replaces a selector by the platform's label with the name of the container that it selects."""
    uid = service.spec.selector.get(CONTAINER_UID, "")
    if len(service.spec.selector) != 1 or uid not in containers:
        return service
    spec = msgspec.structs.replace(service.spec, selector={}, containers=(containers[uid],))
    return msgspec.structs.replace(service, spec=spec, container_uids=(uid,))


def _theirs(labels: Mapping[str, str]) -> dict[str, str]:
    """Returns labels without those that the platform sets on its objects."""
    ours = MANAGED_BY if labels.get(MANAGED_BY) == MANAGER else ""
    return {key: value for key, value in labels.items() if key != ours}


def _kept(name: str, values: Mapping[str, str], rights: ServiceRights, notes: list[str]) -> dict[str, str]:
    """Returns the labels or annotations that the platform will manage; adds notes on keys that are left to others."""
    kept: dict[str, str] = {}
    for key, value in values.items():
        prefix = key.partition("/")[0]
        if key in FOREIGN_ANNOTATIONS or prefix == DOMAIN or prefix.endswith(f".{DOMAIN}"):
            continue
        if why := _refusal(name, key, rights):
            notes.append(f"metadata.{name}.{key}: stays unmanaged: {why}")
        elif len(kept) == _MOST_KEYS:
            notes.append(f"metadata.{name}.{key}: stays unmanaged: a Service has at most {_MOST_KEYS} {name}")
        else:
            kept[key] = value
    return kept


def _refusal(name: str, key: str, rights: ServiceRights) -> str:
    """Returns why the caller may not set a key; empty if the caller may."""
    if name == "annotations" and key not in rights.keys.free and not rights.may(PRIVILEGED):
        return f"setting it needs {PRIVILEGED}"
    if not rights.labelling.allows(key):
        return "setting it needs namespace.security"
    return ""


def _standing(metadata: Manifest, namespace: Namespace, orphans: Collection[str]) -> Iterator[str]:
    """Yields the reasons why a Service may not be taken over, regardless of its content."""
    if (namespace.kubernetes_name, metadata["name"]) == _OF_THE_API_SERVER:
        yield "metadata.name: it belongs to the API server"
    if metadata.get("deletionTimestamp"):
        yield "metadata.deletionTimestamp: it is being deleted"
    labels = metadata.get("labels") or {}
    if labels.get(CONTAINER_UID) and metadata.get("uid") in orphans:
        yield _OF_A_WORKLOAD
    elif labels.get(CONTAINER_UID):
        yield f"metadata.labels.{CONTAINER_UID}: it belongs to a container already"
    if labels.get(SERVICE_UID) and metadata.get("uid") not in orphans:
        yield f"metadata.labels.{SERVICE_UID}: it belongs to a Service of the platform already"
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            yield (
                f"metadata.ownerReferences: {owner.get('kind')} {owner.get('name')} controls it, "
                "and would undo changes"
            )
