"""Common rules of config maps and secrets: finding, deleting, notifying watchers, work for the reconciler.

A config with readers cannot be deleted: containers read it by their environment, volumes show it. The namespace's row,
locked by a deletion and shared by a transaction that begins to use a config, decides between the two.
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

    `restart` restarts the running `readers` of the data; `labelling` is the rule for labels that programs on the
    cluster obey.
    """

    readers: ReaderLookup
    labelling: Labelling
    restart: bool = False


class Changed(msgspec.Struct, Generic[C], frozen=True):
    """A config after a change, with names of containers.

    `restarted`: those that are restarted for it. `missing_keys`: those whose environment reads a key that it removed.
    `secret_keys`: of a secret, the keys whose values have changed, and whether each was there before, and is now.
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
    """The config map or secret of this name.

    Raises:
        NotFound: the namespace or the config, alike for one that the caller does not reach.
    """
    found = await repository.find(transaction, kind, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found(WORDS[kind], name)
    return found


def not_here(kind: Kind, name: str) -> str:
    """The message about one that the platform does not have, and how to import it if the cluster has it."""
    resource = "configmap" if kind == "config_map" else "secret"
    return (
        f'there is no {WORDS[kind]} "{name}" here; if the cluster has one, import it: run `pilothouse '
        f"apply` on the output of `kubectl get {resource} {name} -o yaml`, or import a Deployment "
        "that reads it; or set external, which the namespace's external_sources must allow"
    )


def refuse_unlisted(namespace: str, allowed: Sequence[str], field: str, kind: Kind, name: str) -> None:
    """Raises FailedPrecondition if the patterns of a namespace do not allow a name that only the cluster has."""
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
    """Whether the namespace has one of this name. Raises FailedPrecondition if it is being deleted."""
    found = await repository.find(transaction, kind, namespace.name, name)
    if found is not None:
        refuse_deleting(kind, found)
    return found is not None


async def delete(
    transaction: Transaction, kind: Kind, namespace: str, name: str, check: Check, readers: ReaderLookup
) -> Config:
    """Marks one for deletion; one that is marked is answered as it is.

    Raises:
        NotFound: the namespace or the config.
        FailedPrecondition: something reads it; metadata names who.
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
    """Marks configs for deletion by few statements, all or none; returns them by their names. Raises as `delete`."""
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
    """Removes every config map and secret of a namespace from the database, with a tombstone each; the cluster keeps
    its objects.
    """
    for kind in KINDS:
        found = [item async for item in repository.stream(transaction, kind, namespace_id=namespace.id)]
        for item in sorted(found, key=lambda item: item.id):
            stored = await repository.get(transaction, kind, item.id, lock=True)
            if stored is not None:
                await repository.remove(transaction, kind, stored.id)
                transaction.emit(event(kind, stored, "deleted", stored))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """How many config maps and secrets a namespace holds, those being deleted included."""
    return {f"{WORDS[kind]}s": await repository.count(transaction, kind, namespace_id) for kind in KINDS}


async def changed_data(
    transaction: Transaction, kind: Kind, config: C, effect: Effect, *, removed: Collection[str]
) -> Changed[C]:
    """The effect of a change of its data on the containers that read it.

    Raises PermissionDenied if one of these has rights over the node, or over others, that the caller may not give.
    """
    home, readers = config.namespace_id, effect.readers
    await refuse_power(transaction, kind, [config], effect)
    restarted = await readers.restart(transaction, home, kind, config.name) if effect.restart else []
    missing = await readers.needing(transaction, home, kind, config.name, removed)
    return Changed(config, tuple(restarted), tuple(missing))


async def refuse_power(
    transaction: ReadTransaction, kind: Kind, written: Sequence[Config], effect: Effect
) -> None:
    """Raises PermissionDenied where a container that reads one has rights that the caller may not give one.

    All of them are of one namespace.
    """
    if written:
        names = [each.name for each in written]
        await effect.readers.refuse_power(
            transaction, written[0].namespace_id, kind, names, effect.labelling.may
        )


async def locked_many(
    transaction: Transaction, kind: Kind, namespace: str, names: Sequence[str]
) -> list[Config]:
    """Locks those with these names until the transaction ends, and returns them in the order of their ids.

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
    """The event of a change; a secret's holds no values."""
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
    """Notifies watchers and leaves work for the reconciler."""
    transaction.emit(event(kind, config, change, before))
    going = config.deletion_requested_at is not None
    await transaction.enqueue(kind, config.id, config.cluster_name, config.namespace_id, going=going)


def placed(wanted: C, namespace: Namespace) -> C:
    """A config that is to be made, with its place on the cluster."""
    return msgspec.structs.replace(
        wanted,
        namespace_ref=namespace.ref,
        kubernetes_name=wanted.name,
    )


async def _mark(transaction: Transaction, kind: Kind, stored: Config) -> Config:
    marked = await repository.mark_for_deletion(transaction, kind, stored)
    await changed(transaction, kind, marked, "modified", stored)
    return marked
