"""Common rules of config maps and secrets: find, delete, notify watchers, enqueue work for the reconciler.

A config with readers cannot be deleted: containers whose environment reads it, or volumes that show it. A deletion
locks the namespace's row, and a transaction that begins to use a config takes a shared lock on it, so the two cannot
run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from pilothouse_manifests.name_patterns import is_listed
from pilothouse_server.config import repository
from pilothouse_server.config.model import Config, Kind
from pilothouse_server.config.operations import rules
from pilothouse_server.config.readers import ReaderLookup
from pilothouse_server.errors import FailedPrecondition, not_found
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.store.unit_of_work import Event, ReadTransaction, Transaction
from pilothouse_server.store.unit_of_work import Kind as ChangeKind
from pilothouse_server.values.resources import NamespaceId, NamespaceRef

C = TypeVar("C", bound=Config)
Check = Callable[[Config], None]


class Effect(msgspec.Struct, frozen=True):
    """The effects of a change.

    `restart`: restarts the running `readers` of changed data. `labelling`: the rule for labels that programs on the
    cluster act on.
    """

    readers: ReaderLookup
    labelling: Labelling
    restart: bool = False


class Changed(msgspec.Struct, Generic[C], frozen=True):
    """A config after a change, with names of containers.

    `restarted`: containers that are restarted because of the change. `missing_keys`: containers whose environment reads
    a key that the change removed. `secret_keys`: for a secret, the keys whose values changed; for each, whether it
    existed before, and exists now.
    """

    config: C
    restarted: tuple[str, ...] = ()
    missing_keys: tuple[str, ...] = ()
    secret_keys: Mapping[str, tuple[bool, bool]] = {}


KINDS: tuple[Kind, ...] = ("config_map", "secret")
WORDS: dict[Kind, str] = {"config_map": "config map", "secret": "secret"}

stream = repository.stream
get_many = repository.get_many
CACHED = repository.CACHED


async def locate(
    transaction: ReadTransaction, kind: Kind, namespace: str, name: str, *, lock: bool = False
) -> Config:
    """Returns the config map or secret of this name.

    Raises:
        NotFound: the namespace or the config; also if the caller may not see it.
    """
    found = await repository.find(transaction, kind, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found(WORDS[kind], name)
    return found


def not_here(kind: Kind, name: str) -> str:
    """Returns the message about a config that the platform does not have, and how to import it."""
    resource = "configmap" if kind == "config_map" else "secret"
    return (
        f'there is no {WORDS[kind]} "{name}" in the namespace; if the cluster has one, import it: run '
        f"`pilothouse apply` on the output of `kubectl get {resource} {name} -o yaml`, or import a Deployment "
        "that reads it; or set external, which the namespace's external_sources must allow"
    )


def refuse_unlisted(namespace: str, allowed: Sequence[str], field: str, kind: Kind, name: str) -> None:
    """Raises FailedPrecondition if a namespace's patterns do not allow a name that exists only on the cluster."""
    if is_listed(name, allowed):
        return
    shown = ", ".join(allowed) or "none"
    raise FailedPrecondition(
        f'{field}: {WORDS[kind]} "{name}" is external, and namespace "{namespace}" allows {shown}; ask an '
        "administrator to add its name to external_sources, or import it",
        reason="EXTERNAL_SOURCE_NOT_ALLOWED",
        metadata={"field": field, "name": name, "allowed": shown},
    )


async def is_there(transaction: ReadTransaction, kind: Kind, namespace: Namespace, name: str) -> bool:
    """Returns whether the namespace has a config of this name. Raises FailedPrecondition if it is being deleted."""
    found = await repository.find(transaction, kind, namespace.name, name)
    if found is not None:
        refuse_deleting(kind, found)
    return found is not None


async def delete(
    transaction: Transaction, kind: Kind, namespace: str, name: str, check: Check, readers: ReaderLookup
) -> Config:
    """Marks a config for deletion. A config that is marked already is returned unchanged.

    Raises:
        NotFound: the namespace or the config.
        FailedPrecondition: containers or volumes read it; metadata names them.
    """
    home = await locate_namespace(transaction, namespace, "update")
    stored = await locate(transaction, kind, namespace, name, lock=True)
    check(stored)
    if stored.deletion_requested_at is not None:
        return stored
    await _refuse_read(transaction, kind, home, [name], readers)
    return await _mark(transaction, kind, stored)


async def delete_many(
    transaction: Transaction, kind: Kind, namespace: str, names: Sequence[str], readers: ReaderLookup
) -> dict[str, Config]:
    """Marks configs for deletion with few statements, all or none; returns them by name. Raises as `delete`."""
    home = await locate_namespace(transaction, namespace, "update")
    locked = await locked_many(transaction, kind, namespace, names)
    await _refuse_read(transaction, kind, home, names, readers)
    found = {each.name: each for each in locked}
    for marked in await repository.mark_many(transaction, kind, [each.id for each in locked]):
        await changed(transaction, kind, marked, "modified", found[marked.name])
        found[marked.name] = marked
    return found


async def _refuse_read(
    transaction: Transaction, kind: Kind, home: Namespace, names: Sequence[str], readers: ReaderLookup
) -> None:
    containers = await readers.containers(transaction, home.id, kind, names)
    volumes = await readers.volumes(transaction, home.id, kind, names)
    if containers or volumes:
        raise rules.in_use(WORDS[kind], names[0], containers, volumes)


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Marks every config map and secret of a namespace for deletion, for a cascading delete."""
    for kind in KINDS:
        found = [item async for item in repository.stream(transaction, kind, namespace_id=namespace.id)]
        for item in sorted(found, key=lambda item: item.id):
            stored = await repository.get(transaction, kind, item.id, lock=True)
            if stored is not None and stored.deletion_requested_at is None:
                await _mark(transaction, kind, stored)


async def forget_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every config map and secret of a namespace from the database and emits their deletions.

    The cluster keeps its objects.
    """
    for kind in KINDS:
        found = [item async for item in repository.stream(transaction, kind, namespace_id=namespace.id)]
        for item in sorted(found, key=lambda item: item.id):
            stored = await repository.get(transaction, kind, item.id, lock=True)
            if stored is not None:
                await repository.remove(transaction, kind, stored.id)
                transaction.emit(event(kind, stored, "deleted", stored))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many config maps and secrets a namespace contains, including those being deleted."""
    return {f"{WORDS[kind]}s": await repository.count(transaction, kind, namespace_id) for kind in KINDS}


async def changed_data(
    transaction: Transaction, kind: Kind, config: C, effect: Effect, *, removed: Collection[str]
) -> Changed[C]:
    """Returns the effect of changed data on the containers that read the config.

    Raises PermissionDenied if one of these containers has rights, over the node or over others, that the caller may not
    give.
    """
    home, readers = config.namespace_id, effect.readers
    await refuse_power(transaction, kind, [config], effect)
    restarted = await readers.restart(transaction, home, kind, config.name) if effect.restart else []
    missing = await readers.needing(transaction, home, kind, config.name, removed)
    return Changed(config, tuple(restarted), tuple(missing))


async def refuse_power(
    transaction: ReadTransaction, kind: Kind, written: Sequence[Config], effect: Effect
) -> None:
    """Raises PermissionDenied if a container that reads one of these configs has rights that the caller may not give.

    All configs must be in one namespace.
    """
    if written:
        names = [each.name for each in written]
        await effect.readers.refuse_power(
            transaction, written[0].namespace_id, kind, names, effect.labelling.may
        )


async def locked_many(
    transaction: Transaction, kind: Kind, namespace: str, names: Sequence[str]
) -> list[Config]:
    """Locks the configs with these names until the transaction ends, and returns them ordered by id.

    Raises as `locate`, and FailedPrecondition if one is being deleted.
    """
    home = await locate_namespace(transaction, namespace)
    found = await repository.lock_named(transaction, kind, home.id, names)
    for name in sorted({*names} - {each.name for each in found}):
        raise not_found(WORDS[kind], name)
    for each in found:
        refuse_deleting(kind, each)
    return found


def refuse_deleting(kind: Kind, config: Config) -> None:
    """Raises FailedPrecondition if it is being deleted."""
    if config.deletion_requested_at is not None:
        raise FailedPrecondition(
            f'{WORDS[kind]} "{config.name}" is being deleted', reason=f"{kind.upper()}_TERMINATING"
        )


def event(kind: Kind, config: Config, change: ChangeKind, before: Config | None = None) -> Event:
    """Returns the event of a change; that of a secret contains no values."""
    return Event(
        resource_type=kind,
        resource_id=config.id,
        namespace_id=config.namespace_id,
        name=config.name,
        kind=change,
        entity=config,
        labels=config.labels,
        status="",
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else "",
    )


async def changed(
    transaction: Transaction, kind: Kind, config: Config, change: ChangeKind, before: Config | None = None
) -> None:
    """Emits the event of a change, and enqueues the config for the reconciler."""
    transaction.emit(event(kind, config, change, before))
    going = config.deletion_requested_at is not None
    await transaction.enqueue(kind, config.id, config.cluster_name, config.namespace_id, going=going)


def placed(wanted: C, namespace: Namespace) -> C:
    """Returns a config that is to be created, with its namespace and its name on the cluster."""
    return msgspec.structs.replace(
        wanted,
        namespace_ref=namespace.ref,
        kubernetes_name=wanted.name,
    )


async def _mark(transaction: Transaction, kind: Kind, stored: Config) -> Config:
    marked = await repository.mark_for_deletion(transaction, kind, stored)
    await changed(transaction, kind, marked, "modified", stored)
    return marked
