"""Takes over existing objects of a carried kind. The objects stay as they are, and only get the platform's label.

    discover (outside any transaction): converts each object; a dry run shows the changes of a first apply
    create (one transaction): inserts a row for each importable object, and work for the reconciler, which
        sets the label

Labels and annotations that the caller may not set stay on the object, owned by others. If the platform's first apply
would change more than the managed fields, the object is imported with the drift policy REPORT, so that no change of
others is reverted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from pilothouse_manifests.sources import FOREIGN_ANNOTATIONS
from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.errors import FailedPrecondition, PilothouseError
from pilothouse_server.importing import unfit
from pilothouse_server.importing.operations import (
    SECONDS,
    SHAPELESS,
    UNREADABLE,
    error_words,
    wait_for_namespace,
)
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.errors import ClusterError, NotFound, Refused
from pilothouse_server.kubernetes.objects import AnyObject, Manifest, Resource
from pilothouse_server.kubernetes.ownership import DOMAIN, MANAGED_BY, MANAGER
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.objects import documents, kinds, manifests, operations
from pilothouse_server.objects.facts import KindFacts
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.store.unit_of_work import Transaction

log = structlog.get_logger(__name__)

_ABSENT: Final = "there is no such object"
_MOST_KEYS: Final = 64
# Fields that the cluster writes; a caller's document has none of them.
_OF_THE_CLUSTER: Final = frozenset({"status", "metadata"})
# Kubernetes creates this object in each namespace.
_OF_THE_API_SERVER: Final = ("ServiceAccount", "default")


class ImportedKind(msgspec.Struct, frozen=True):
    """The kind that is imported, and the facts that its objects are checked against."""

    api_version: str
    kind: str
    facts: KindFacts


class ObjectCandidate(msgspec.Struct, frozen=True):
    """An examined object of the cluster. `carried`: None if it is not imported; `problems` are then the reasons."""

    name: str
    carried: CarriedObject | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def discover(
    connect: Connect,
    namespace: Namespace,
    wanted: ImportedKind,
    names: Sequence[str],
    selector: str,
    rights: ObjectRights,
) -> list[ObjectCandidate]:
    """Returns the objects with these names, or all objects of the kind without an owner, as they would be taken over.

    Raises:
        Unavailable: the cluster does not respond in time.
        FailedPrecondition: the cluster denies reading, or does not have the kind.
    """
    cluster = namespace.cluster_name
    try:
        client = await connect(cluster)
        await within(wait_for_namespace(client, namespace), cluster)
        return await within(_discover(client, namespace, wanted, names, selector, rights), cluster, SECONDS)
    except ClusterError as error:
        raise refusal(error, cluster) from error


async def create(
    transaction: Transaction,
    namespace_name: str,
    candidates: Sequence[ObjectCandidate],
    rights: ObjectRights,
) -> list[ObjectCandidate]:
    """Creates the objects that can be created, each independently. Returns all candidates with their rows.

    Raises:
        NotFound: the namespace.
        FailedPrecondition: the namespace is inactive or being deleted.
    """
    refuse_inactive_namespace(await locate_namespace(transaction, namespace_name, "update"))
    taken = []
    for candidate in candidates:
        if candidate.carried is not None:
            try:
                async with transaction.attempt():
                    stored = await operations.create(
                        transaction, namespace_name, candidate.carried, rights=rights
                    )
                candidate = msgspec.structs.replace(candidate, carried=stored.carried)
            except PilothouseError as error:
                candidate = ObjectCandidate(candidate.name, problems=tuple(error_words(error)))
        taken.append(candidate)
    return taken


async def _discover(
    client: ClusterClient,
    namespace: Namespace,
    wanted: ImportedKind,
    names: Sequence[str],
    selector: str,
    rights: ObjectRights,
) -> list[ObjectCandidate]:
    sample = CarriedObject(api_version=wanted.api_version, kind=wanted.kind)
    found_kind = await KindDiscovery().find(client, wanted.api_version, wanted.kind)
    if found_kind is None:
        missing = kinds.kind_not_found(wanted.api_version, wanted.kind)
        raise FailedPrecondition(
            f"kind: {missing.message}", reason="KIND_NOT_FOUND", metadata={"kind": wanted.kind}
        )
    resource = await kinds.resource_on(client, KindDiscovery(), sample)
    listed = await client.list(resource, namespace.kubernetes_name, label_selector=selector)
    there = {item.metadata.name: item for item in listed.items}
    odd = [name for _, name in listed.left_out if name]
    nobodys = [
        name
        for name, item in there.items()
        if not _ours(item.metadata.labels or {}) and (wanted.kind, name) != _OF_THE_API_SERVER
    ]
    found = []
    for name in dict.fromkeys(names or [*nobodys, *odd]):
        if name in odd:
            found.append(ObjectCandidate(name, problems=UNREADABLE))
        elif name not in there:
            found.append(ObjectCandidate(name, problems=(_ABSENT,)))
        else:
            found.append(await _examined(client, resource, namespace, wanted, name, rights))
    return found


async def _examined(
    client: ClusterClient,
    resource: Resource[AnyObject],
    namespace: Namespace,
    wanted: ImportedKind,
    name: str,
    rights: ObjectRights,
) -> ObjectCandidate:
    try:
        live = await client.read(resource, namespace.kubernetes_name, name)
        return await _candidate(client, resource, namespace, wanted, live, rights)
    except NotFound:
        # The object was deleted after it was listed.
        return ObjectCandidate(name, problems=(_ABSENT,))
    except Refused as error:
        return ObjectCandidate(name, problems=(f"the cluster refuses it: {error.message}",))
    except PilothouseError as error:
        return ObjectCandidate(name, problems=tuple(error_words(error)))
    except SHAPELESS as error:
        log.warning("an object cannot be read", cluster=client.name, error=type(error).__name__)
        return ObjectCandidate(name, problems=UNREADABLE)


async def _candidate(
    client: ClusterClient,
    resource: Resource[AnyObject],
    namespace: Namespace,
    wanted: ImportedKind,
    live: Manifest,
    rights: ObjectRights,
) -> ObjectCandidate:
    name = live["metadata"]["name"]
    if problems := [*unfit.problems(live), *_standing(live["metadata"])]:
        return ObjectCandidate(name, problems=tuple(problems))
    carried, notes = _converted(namespace, wanted, live, rights)
    # The guard runs first, because the result of a dry run contains what the cluster has.
    rights.check(namespace, None, carried, wanted.facts)
    # The label by which the platform finds the object needs a uid, and the row gets its uid later.
    sample = msgspec.structs.replace(carried, uid="00000000-0000-0000-0000-000000000000")
    after = await client.dry_run(resource, manifests.manifest(sample), force=True)
    if changed := _changed(live, after):
        notes.append(f"repairing would change {', '.join(changed)}")
        carried = msgspec.structs.replace(carried, drift_policy="report")
    if carried.drift_policy == "report":
        notes.insert(0, "drift policy REPORT: changes by others are not reverted")
    return ObjectCandidate(name, carried, notes=tuple(notes))


def _converted(
    namespace: Namespace, wanted: ImportedKind, live: Manifest, rights: ObjectRights
) -> tuple[CarriedObject, list[str]]:
    """Returns the carried object, and notes on parts that are left to others."""
    metadata = live["metadata"]
    notes: list[str] = []
    labels = _kept("labels", _theirs(metadata.get("labels") or {}), rights, notes)
    annotations = _kept("annotations", metadata.get("annotations") or {}, rights, notes)
    document = {key: value for key, value in live.items() if key not in _OF_THE_CLUSTER}
    given = CarriedObject(
        name=metadata["name"],
        namespace_ref=namespace.ref,
        api_version=wanted.api_version,
        kind=wanted.kind,
        labels=labels,
        annotations=annotations,
        document=json.dumps(document, ensure_ascii=False),
        taken_over=metadata["uid"],
    )
    carried = documents.completed(given, (namespace.name,))
    return operations.with_default_policy(carried), notes


def _changed(live: Manifest, after: Manifest) -> list[str]:
    """Returns the paths that the platform's first apply would change, except its label and the managed fields."""
    return [
        path
        for path, _, _ in documents.differences(_content(live), _content(after))
        if f"[{DOMAIN}/" not in path
    ]


def _content(found: Manifest) -> Manifest:
    metadata = found["metadata"]
    named = {key: metadata.get(key) or {} for key in ("labels", "annotations")}
    labels = {key: value for key, value in named["labels"].items() if not _is_ours(key)}
    rest = {key: value for key, value in found.items() if key not in _OF_THE_CLUSTER}
    return {**rest, "metadata": {**named, "labels": labels}}


def _theirs(labels: Mapping[str, str]) -> dict[str, str]:
    """Returns labels without those that the platform sets on its objects."""
    ours = MANAGED_BY if labels.get(MANAGED_BY) == MANAGER else ""
    return {key: value for key, value in labels.items() if key != ours}


def _kept(name: str, values: Mapping[str, str], rights: ObjectRights, notes: list[str]) -> dict[str, str]:
    """Returns the labels or annotations that the platform will manage; adds notes on keys that are left to others."""
    kept: dict[str, str] = {}
    for key, value in values.items():
        if key in FOREIGN_ANNOTATIONS or _is_ours(key):
            continue
        if not rights.labelling.allows(key):
            notes.append(f"metadata.{name}.{key}: stays unmanaged: setting it needs namespace.security")
        elif len(kept) == _MOST_KEYS:
            notes.append(f"metadata.{name}.{key}: stays unmanaged: an object has at most {_MOST_KEYS} {name}")
        else:
            kept[key] = value
    return kept


def _is_ours(key: str) -> bool:
    prefix = key.partition("/")[0]
    return prefix == DOMAIN or prefix.endswith(f".{DOMAIN}")


def _ours(labels: Mapping[str, Any]) -> list[str]:
    return [key for key in labels if key.startswith(f"{DOMAIN}/")]


def _standing(metadata: Manifest) -> Iterator[str]:
    """Yields the reasons why an object may not be taken over, regardless of its content."""
    if metadata.get("deletionTimestamp"):
        yield "metadata.deletionTimestamp: it is being deleted"
    for key in _ours(metadata.get("labels") or {}):
        yield f"metadata.labels.{key}: it belongs to the platform already"
        break
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            yield (
                f"metadata.ownerReferences: {owner.get('kind')} {owner.get('name')} controls it, "
                "and would undo changes"
            )
