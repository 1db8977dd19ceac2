"""The rules of Services: create, change, delete.

The reconciler writes the Service to the cluster. The row is deleted when the cluster has deleted the object.

A Service that a container owns is computed from the container's ports (`containers.owned_services`). It can be read
here, but changes and is deleted only with its container.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    already_exists,
    not_found,
)
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.network import repository, rules
from pilothouse_server.network.guarding import refuse_guarded, with_rights
from pilothouse_server.network.model import Service
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction, Transaction
from pilothouse_server.values.resources import NamespaceId, NamespaceRef

get_many = repository.get_many
CACHED = repository.CACHED
stream = repository.stream_services
count = repository.count
has_service_changes = repository.has_service_changes
take_service_changes = repository.take_service_changes
owned_services = repository.owned_services
insert_owned = repository.insert_owned
update_owned = repository.update_owned
mark_owned = repository.mark_owned
delete_owned = repository.delete_owned


class ServiceRights(msgspec.Struct, frozen=True):
    """The rights of a caller over a Service. `keys`: the annotations and labels that the guard allows or restricts."""

    labelling: Labelling
    keys: Keys

    @property
    def may(self) -> May:
        return self.labelling.may

    def check(self, namespace: Namespace, stored: Service | None, wanted: Service) -> None:
        """Raises PermissionDenied or FailedPrecondition for the first new value that the caller may not set."""
        if stored is None or stored.type != wanted.type:
            rules.refuse_type(namespace.name, namespace.service_types, wanted.type, "service.type")
        placed = msgspec.structs.replace(wanted, namespace_ref=namespace.ref)
        refuse_guarded(stored, placed, self.keys, self.may, namespace.allowed_hosts)
        self.labelling.check("service", namespace.name, stored, wanted)


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> Service:
    """Returns the Service of this name.

    Raises:
        NotFound: the namespace or the Service; also if the caller may not see it.
    """
    found = await repository.find(transaction, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found("service", name)
    return found


async def create(
    transaction: Transaction, namespace_name: str, wanted: Service, *, rights: ServiceRights
) -> Service:
    """Creates a Service.

    Raises:
        InvalidArgument: a rule between fields is broken; names every violation.
        NotFound: the namespace.
        AlreadyExists: the name, including names of Services that containers own.
        FailedPrecondition: the namespace is inactive or being deleted, or does not allow the type.
        PermissionDenied: a field, a label or an annotation that needs a permission.
        ResourceExhausted: the quota of the namespace.
    """
    wanted = rules.checked(wanted)
    namespace = await locate_namespace(transaction, namespace_name, "update")
    refuse_inactive_namespace(namespace)
    rights.check(namespace, None, wanted)
    await _refuse_taken(transaction, namespace, wanted.name)
    await _check_quota(transaction, namespace)
    placed = msgspec.structs.replace(wanted, namespace_ref=namespace.ref)
    created = await repository.insert_service(transaction, with_rights(placed, rights.keys))
    await changed(transaction, created, "added")
    return created


async def create_many(
    transaction: Transaction, namespace_name: str, wanted: Sequence[Service], *, rights: ServiceRights
) -> dict[str, Service]:
    """Creates Services with few statements, all or none; returns them by name.

    Raises as `create`. Also raises AlreadyExists for a name that no container uses any more if its row still exists.
    """
    namespace = await locate_namespace(transaction, namespace_name, "update")
    refuse_inactive_namespace(namespace)
    placed: list[Service] = []
    async for each in cooperatively(wanted):
        checked = rules.checked(each)
        rights.check(namespace, None, checked)
        placed.append(with_rights(msgspec.structs.replace(checked, namespace_ref=namespace.ref), rights.keys))
    names = [each.name for each in placed]
    if (taken := await repository.any_taken(transaction, namespace.id, names)) is not None:
        raise already_exists("service", taken)
    await _check_quota(transaction, namespace, len(placed))
    created = await repository.insert_services(transaction, placed)
    async for service in cooperatively(created):
        await changed(transaction, service, "added")
    return {service.name: service for service in created}


async def change(
    transaction: Transaction,
    namespace_name: str,
    name: str,
    merge: Callable[[Service], Service],
    check: Callable[[Service], None],
    *,
    rights: ServiceRights,
) -> Service:
    """Changes the desired state: `merge` returns the stored Service with the caller's fields.

    Raises:
        InvalidArgument: a rule between fields is broken.
        NotFound: the namespace or the Service.
        FailedPrecondition: it is being deleted, a container owns it, or the namespace does not allow the type.
        Aborted: from `check`, the etag is not the current one.
        PermissionDenied: a field, a label or an annotation that needs a permission.
    """
    namespace = await locate_namespace(transaction, namespace_name, "share")
    stored = await locate(transaction, namespace_name, name, lock=True)
    check(stored)
    wanted = _wanted(namespace, stored, merge, rights)
    if wanted is None:
        return stored
    written = await repository.update_service(transaction, stored, wanted)
    await changed(transaction, written, "modified", stored)
    return written


async def change_many(
    transaction: Transaction,
    namespace_name: str,
    merges: Mapping[str, Callable[[Service], Service]],
    *,
    rights: ServiceRights,
) -> dict[str, Service]:
    """Changes Services with few statements, all or none; returns them by name. Raises as `change`."""
    namespace = await locate_namespace(transaction, namespace_name, "share")
    found = await _locked_many(transaction, namespace, list(merges))
    changes: list[Service] = []
    async for stored in cooperatively(list(found.values())):
        wanted = _wanted(namespace, stored, merges[stored.name], rights)
        if wanted is not None:
            changes.append(wanted)
    async for written in cooperatively(await repository.update_services(transaction, changes)):
        await changed(transaction, written, "modified", found[written.name])
        found[written.name] = written
    return found


async def delete_many(
    transaction: Transaction, namespace_name: str, names: Sequence[str]
) -> dict[str, Service]:
    """Marks Services for deletion with few statements, all or none; returns them by name. Raises as `delete`."""
    namespace = await locate_namespace(transaction, namespace_name, "share")
    found = await _locked_many(transaction, namespace, names)
    for each in found.values():
        refuse_owned(each)
    ids = [each.id for each in found.values() if each.deletion_requested_at is None]
    async for marked in cooperatively(await repository.mark_many(transaction, ids)):
        await changed(transaction, marked, "modified", found[marked.name])
        found[marked.name] = marked
    return found


async def _locked_many(
    transaction: Transaction, namespace: Namespace, names: Sequence[str]
) -> dict[str, Service]:
    found = {each.name: each for each in await repository.lock_named(transaction, namespace.id, names)}
    for name in names:
        if name not in found:
            raise not_found("service", name)
    return found


def _wanted(
    namespace: Namespace, stored: Service, merge: Callable[[Service], Service], rights: ServiceRights
) -> Service | None:
    """Returns a Service with a change; None if nothing changes. Raises as `change`."""
    refuse_owned(stored)
    if stored.deletion_requested_at is not None:
        raise FailedPrecondition(f'service "{stored.name}" is being deleted', reason="SERVICE_TERMINATING")
    wanted = rules.checked(merge(stored))
    if wanted == stored:
        return None
    rights.check(namespace, stored, wanted)
    return with_rights(wanted, rights.keys)


async def delete(
    transaction: Transaction, namespace: str, name: str, check: Callable[[Service], None]
) -> Service:
    """Marks a Service for deletion. A Service that is marked already is returned unchanged.

    Raises:
        NotFound: the namespace or the Service.
        FailedPrecondition: a container owns it.
    """
    await locate_namespace(transaction, namespace, "share")
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    refuse_owned(stored)
    return await _delete(transaction, stored)


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Deletes every Service of a namespace, except those that containers own: they are deleted with the containers."""
    found = [item async for item in repository.stream_services(transaction, namespace_id=namespace.id)]
    for item in sorted(found, key=lambda item: item.id):
        stored = None if item.owner else await repository.get(transaction, item.id, lock=True)
        if stored is not None:
            await _delete(transaction, stored)


async def forget_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every Service of a namespace from the database and emits its deletion; the cluster keeps them."""
    found = [item async for item in repository.stream_services(transaction, namespace_id=namespace.id)]
    for item in sorted(found, key=lambda item: item.id):
        await repository.delete_service(transaction, item.id)
        transaction.emit(event(item, "deleted", item))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many Services without an owning container a namespace contains, including those being deleted."""
    return {"services": await repository.count_of_their_own(transaction, namespace_id)}


def event(service: Service, kind: Kind, before: Service | None = None) -> Event:
    """Returns the event of a change of a Service."""
    return Event(
        resource_type="service",
        resource_id=service.id,
        namespace_id=service.namespace_id,
        name=service.name,
        kind=kind,
        entity=service,
        labels=service.labels,
        status=service.observed.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.observed.status,
    )


def refuse_owned(service: Service) -> None:
    """Raises FailedPrecondition if a container owns the Service."""
    if service.owner:
        raise FailedPrecondition(
            f'service "{service.name}" belongs to container "{service.owner}": change the ports of the container',
            reason="SERVICE_OWNED",
            metadata={"container": service.owner},
        )


async def changed(
    transaction: Transaction, service: Service, kind: Kind, before: Service | None = None
) -> None:
    """Emits the event of a change, and enqueues the Service for the reconciler."""
    transaction.emit(event(service, kind, before))
    going = service.deletion_requested_at is not None
    await transaction.enqueue("service", service.id, service.cluster_name, service.namespace_id, going=going)


async def _refuse_taken(transaction: Transaction, namespace: Namespace, name: str) -> None:
    taken = await repository.find(transaction, namespace.name, name)
    if taken is not None and not taken.owner:
        raise already_exists("service", name, being_deleted=taken.deletion_requested_at is not None)
    if (container := await repository.container_of(transaction, namespace.id, name)) is not None:
        raise AlreadyExists(
            f'service "{name}" already exists: it belongs to container "{container}"',
            reason="SERVICE_ALREADY_EXISTS",
            metadata={"service": name, "container": container},
        )
    if taken is not None:
        # Its container no longer has this Service, so its row is about to be deleted.
        await repository.delete_service(transaction, taken.id)
        transaction.emit(event(taken, "deleted", taken))


async def _check_quota(transaction: ReadTransaction, namespace: Namespace, more: int = 1) -> None:
    limit = namespace.quota.services
    if not limit:
        return
    rules.refuse_exceeded_number(
        namespace.name, limit, await repository.count(transaction, namespace.id), more
    )


async def _delete(transaction: Transaction, stored: Service) -> Service:
    if stored.deletion_requested_at is not None:
        return stored
    marked = await repository.mark_for_deletion(transaction, stored)
    await changed(transaction, marked, "modified", stored)
    return marked
