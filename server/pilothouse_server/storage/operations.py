"""The rules of volumes: create, enlarge, delete, mount.

The reconciler creates the object of a claim on the cluster. The claim's row is deleted when the cluster has deleted the
object. The other types are parts of pods: they exist once they are stored, and end when their row is deleted.

A claim that an import took over (`importing.volumes`) belonged to somebody before, and so did its data. Deleting its
volume releases the claim: the platform's label is removed, and the claim stays on the cluster.

A volume that a container mounts cannot be deleted. A deletion locks the namespace's row, and a transaction that begins
to mount a volume takes a shared lock on it, so the two cannot run at the same time. Mounting and unmounting change the
container, so its pods are replaced.

A volume's message includes the containers that mount it. A change of a container inserts a row into `mount_changes` for
each volume that it begins or ceases to mount, and `store.follow_ups` has the events written later. So no change of a
container waits for the lock of a volume that many containers mount.

A claim that a StatefulSet creates from a template is a volume with an owner as long as a pod needs it
(`containers.volume_events`). It can be enlarged here, but not deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from pilothouse_server.config.operations import configs
from pilothouse_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Violation,
    already_exists,
    not_found,
)
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.storage import repository, rules
from pilothouse_server.storage.model import CLAIM, Volume
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction, Store, Transaction
from pilothouse_server.values.quantity import Quantity
from pilothouse_server.values.resources import NamespaceId, NamespaceRef

Check = Callable[[Volume], None]

_BATCH_ROWS = 100

has_claim_changes = repository.has_claim_changes
take_turn = repository.take_turn
take_claim_change = repository.take_claim_change
note_claims = repository.note_claims
without_owner = repository.without_owner
not_needed = repository.not_needed
of_others = repository.of_others
missing_claims = repository.missing_claims
insert_owned = repository.insert_owned
update_owners = repository.update_owners
count_storage = repository.count_storage
get_many = repository.get_many
CACHED = repository.CACHED
stream = repository.stream_volumes
showing = repository.showing


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> Volume:
    """Returns the volume of this name.

    Raises:
        NotFound: the namespace or the volume; also if the caller may not see it.
    """
    found = await repository.find(transaction, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found("volume", name)
    return found


async def create(
    transaction: Transaction,
    namespace_name: str,
    wanted: Volume,
    *,
    labelling: Labelling,
    may_use_host_paths: bool,
) -> Volume:
    """Creates a volume.

    Raises:
        InvalidArgument: a rule between fields is broken, or the source does not exist; names every violation.
        NotFound: the namespace.
        AlreadyExists: the name.
        FailedPrecondition: the namespace is inactive or being deleted.
        PermissionDenied: a folder of the node, without `may_use_host_paths`; or a guarded label or annotation.
        ResourceExhausted: the storage quota of the namespace.
    """
    wanted = rules.checked(wanted)
    _check_rights(namespace_name, wanted, labelling, may_use_host_paths=may_use_host_paths)
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    if namespace.quota.storage:
        await repository.lock_count(transaction, namespace.id)
    taken = await repository.find(transaction, namespace_name, wanted.name)
    if taken is not None:
        being_deleted = taken.deletion_requested_at is not None
        raise already_exists("volume", wanted.name, being_deleted=being_deleted)
    await _check_sources(transaction, namespace, wanted)
    await _check_quota(transaction, namespace, wanted.size if wanted.is_claim else "", "")
    created = await repository.insert_volume(transaction, _placed(wanted, namespace))
    await changed(transaction, created, "added")
    return created


async def create_many(
    transaction: Transaction,
    namespace_name: str,
    wanted: Sequence[Volume],
    *,
    labelling: Labelling,
    may_use_host_paths: bool,
) -> dict[str, Volume]:
    """Creates volumes with few statements, all or none; returns them by name. Raises as `create`."""
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    if namespace.quota.storage:
        await repository.lock_count(transaction, namespace.id)
    names = [each.name for each in wanted]
    if (taken := await repository.first_taken(transaction, namespace.id, names)) is not None:
        raise already_exists("volume", taken)
    placed: list[Volume] = []
    async for each in cooperatively(wanted):
        checked = rules.checked(each)
        _check_rights(namespace_name, checked, labelling, may_use_host_paths=may_use_host_paths)
        await _check_sources(transaction, namespace, checked)
        placed.append(_placed(checked, namespace))
    sizes = sum(Quantity.parse(each.size or "0").whole for each in placed if each.is_claim)
    await _check_quota(transaction, namespace, str(sizes), "")
    created = await repository.insert_volumes(transaction, placed)
    async for volume in cooperatively(created):
        await changed(transaction, volume, "added")
    return {each.name: each for each in created}


def _check_rights(namespace: str, wanted: Volume, labelling: Labelling, *, may_use_host_paths: bool) -> None:
    if not may_use_host_paths:
        rules.refuse_host_path(namespace, wanted.name, wanted.type)
    labelling.check("volume", namespace, None, wanted)


async def _check_sources(transaction: Transaction, namespace: Namespace, wanted: Volume) -> None:
    if wanted.external and (wanted.type == "config_map" or wanted.type == "secret"):
        allowed = namespace.external_sources
        configs.refuse_unlisted(
            namespace.name, allowed, "volume.source_name", wanted.type, wanted.source_name
        )
    await check_source(transaction, namespace.name, wanted)


def _placed(wanted: Volume, namespace: Namespace) -> Volume:
    return msgspec.structs.replace(
        wanted, namespace_ref=namespace.ref, kubernetes_name=wanted.name if wanted.is_claim else ""
    )


async def change(
    transaction: Transaction,
    namespace: str,
    name: str,
    merge: Callable[[Volume], Volume],
    check: Check,
    *,
    labelling: Labelling,
    replace_lost_claim: bool = False,
) -> Volume:
    """Changes the desired state: `merge` returns the stored volume with the caller's fields.

    `replace_lost_claim`: creates a new, empty claim in place of the lost one.

    Raises:
        InvalidArgument: a rule between fields is broken, or the claim would shrink.
        NotFound: the namespace or the volume.
        FailedPrecondition: the volume is being deleted, the limit of a mounted emptyDir would change, or no claim is
            lost.
        Aborted: from `check`, the etag is not the current one.
        PermissionDenied: a guarded label or annotation.
        ResourceExhausted: the storage quota of the namespace.
    """
    # The lock is shared, so that no container begins to mount an emptyDir whose limit is about to change.
    home = await locate_namespace(transaction, namespace, "share")
    if home.quota.storage:
        # The counting lock is taken before rows of resources are locked.
        await repository.lock_count(transaction, home.id)
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    refuse_deleting(stored)
    if replace_lost_claim:
        rules.check_lost(stored)
    wanted = rules.checked(merge(stored))
    if wanted == stored and not replace_lost_claim:
        return stored
    labelling.check("volume", namespace, stored, wanted)
    rules.check_growth(stored, wanted)
    if stored.type == "empty_dir" and wanted.size != stored.size and stored.mounted_by:
        raise _in_use(stored, "its size limit is part of their pods; detach it before changing the size")
    if stored.is_claim:
        await _check_quota(transaction, home, wanted.size, stored.size)
    write = repository.replace_claim if replace_lost_claim else repository.update_volume
    written = await write(transaction, stored, wanted)
    await changed(transaction, written, "modified", stored)
    return written


async def delete(
    transaction: Transaction,
    namespace: str,
    name: str,
    check: Check,
    refuse: Callable[[Volume], Awaitable[None]],
) -> Volume:
    """Deletes a volume. A claim is marked for deletion; one that is marked already is returned unchanged.

    The claim on the cluster is deleted with its data, unless it was taken over: then it is released.

    Raises:
        NotFound: the namespace or the volume.
        FailedPrecondition: containers mount it; the metadata names them.
        PermissionDenied: from `refuse`, pods still read it with rights that the caller may not give.
        FailedPrecondition: from `refuse`, containers name its claim themselves.
    """
    await locate_namespace(transaction, namespace, "update")
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    if stored.mounted_by:
        raise _in_use(stored, "detach it first")
    await refuse(stored)
    return await _delete(transaction, stored)


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Deletes every volume of a namespace, mounted or not. A cascading delete calls it after the containers."""
    found = [item async for item in repository.stream_volumes(transaction, namespace_id=namespace.id)]
    # All callers lock volumes in this order.
    for item in sorted(found, key=lambda item: item.id):
        stored = await repository.get(transaction, item.id, lock=True)
        if stored is not None:
            await _delete(transaction, stored)


async def forget_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every volume of a namespace from the database and emits its deletion; the cluster keeps the claims."""
    found = [item async for item in repository.stream_volumes(transaction, namespace_id=namespace.id)]
    # All callers lock volumes in this order.
    for item in sorted(found, key=lambda item: item.id):
        await repository.delete_volume(transaction, item.id)
        transaction.emit(event(item, "deleted", item))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many volumes a namespace contains, including those being deleted."""
    return {"volumes": await repository.count(transaction, namespace_id)}


def refuse_deleting(volume: Volume) -> None:
    """Raises FailedPrecondition if the volume is being deleted."""
    if volume.deletion_requested_at is not None:
        raise FailedPrecondition(f'volume "{volume.name}" is being deleted', reason="VOLUME_TERMINATING")


def event(volume: Volume, kind: Kind, before: Volume | None = None) -> Event:
    """Returns the event of a change of a volume."""
    return Event(
        resource_type="volume",
        resource_id=volume.id,
        namespace_id=volume.namespace_id,
        name=volume.name,
        kind=kind,
        entity=volume,
        labels=volume.labels,
        status=volume.observed.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.observed.status,
    )


async def check_source(transaction: Transaction, namespace: str, wanted: Volume) -> None:
    """Raises InvalidArgument if the config map or secret that the volume shows does not exist."""
    if (wanted.type != "config_map" and wanted.type != "secret") or wanted.optional or wanted.external:
        return
    try:
        source = await configs.locate(transaction, wanted.type, namespace, wanted.source_name)
    except NotFound:
        source = None
    # A new user of a source must not rely on one that is being deleted.
    if source is None or source.deletion_requested_at is not None:
        words = configs.not_here(wanted.type, wanted.source_name)
        field = "volume.source_name"
        raise InvalidArgument(
            f"{field}: {words}",
            reason="SOURCE_NOT_FOUND",
            metadata={"field": field},
            violations=(Violation(field, "exists", words),),
        )


async def _check_quota(transaction: Transaction, namespace: Namespace, size: str, before: str) -> None:
    """Raises ResourceExhausted if a growing claim exceeds the quota. The caller must hold the counting lock."""
    limit = namespace.quota.storage
    more = Quantity.parse(size or "0").whole - Quantity.parse(before or "0").whole
    if not limit or more <= 0:
        return
    used = await repository.count_storage(transaction, namespace.id)
    rules.refuse_exceeded_storage(namespace.name, limit, used, more)


async def _delete(transaction: Transaction, stored: Volume) -> Volume:
    if not stored.is_claim:
        await repository.delete_volume(transaction, stored.id)
        gone = msgspec.structs.replace(
            stored,
            deletion_requested_at=await transaction.moment(),
            observed=msgspec.structs.replace(stored.observed, status="deleted"),
        )
        transaction.emit(event(gone, "deleted", stored))
        return gone
    if stored.deletion_requested_at is not None:
        return stored
    marked = await repository.mark_for_deletion(transaction, stored)
    await changed(transaction, marked, "modified", stored)
    return marked


def _in_use(volume: Volume, advice: str) -> FailedPrecondition:
    names = ", ".join(volume.mounted_by)
    return FailedPrecondition(
        f'volume "{volume.name}" is mounted by {names}: {advice}',
        reason="VOLUME_IN_USE",
        metadata={"containers": names},
    )


async def changed(transaction: Transaction, volume: Volume, kind: Kind, before: Volume | None = None) -> None:
    """Emits the event of a change, and enqueues the volume for the reconciler if it has an object on the cluster."""
    transaction.emit(event(volume, kind, before))
    if volume.type == CLAIM:
        going = volume.deletion_requested_at is not None
        await transaction.enqueue("volume", volume.id, volume.cluster_name, volume.namespace_id, going=going)


async def write_mount_events(store: Store) -> Sequence[Volume]:
    """Writes the events of some volumes whose mounts changed; returns these volumes, empty if none are left."""
    async with store.system_look() as look:
        if not await repository.has_mount_changes(look):
            return ()
    async with store.system_write() as transaction:
        volumes = await repository.take_mount_changes(transaction, _BATCH_ROWS)
        for volume in volumes:
            transaction.emit(event(volume, "modified", volume))
    return volumes
