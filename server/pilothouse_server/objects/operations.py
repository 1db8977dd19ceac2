"""The rules of carried objects: create, change, delete.

The reconciler writes the object to the cluster. The row is deleted when the cluster has deleted the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from pilothouse_manifests.former_versions import deprecated
from pilothouse_server.authorization.access import May
from pilothouse_server.errors import FailedPrecondition, ResourceExhausted, already_exists, not_found
from pilothouse_server.guard.carrying import CarriedPlace, warnings_of
from pilothouse_server.guard.model import PRIVILEGED_OBJECT, Keys
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.objects import documents, facts, guarding, kinds, masking, repository, scaling
from pilothouse_server.objects.facts import KindFacts
from pilothouse_server.objects.model import CarriedObject, ObjectKey
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction, Transaction
from pilothouse_server.values.resources import NamespaceId, NamespaceRef, ObjectWarning

# The reason of a warning about a disruption budget that allows no eviction.
BLOCKING_BUDGET = "BLOCKING_BUDGET"
# The reason of a warning about a version that Kubernetes will stop serving.
DEPRECATED_VERSION = "DEPRECATED_VERSION"

list_page = repository.list_objects
get_many = repository.get_many
stream = repository.stream_objects
stream_ready = repository.stream_ready
rests_of = repository.rests_of


class ObjectRights(msgspec.Struct, frozen=True):
    """The rights of a caller over objects. `keys`: the annotations and labels that the guard allows or restricts."""

    labelling: Labelling
    keys: Keys

    @property
    def may(self) -> May:
        return self.labelling.may

    def check(
        self, namespace: Namespace, stored: CarriedObject | None, wanted: CarriedObject, kind: KindFacts
    ) -> CarriedObject:
        """Returns the object with the rights that it is admitted with.

        Raises PermissionDenied, FailedPrecondition or InvalidArgument for the first new value that the caller may not
        set.
        """
        placed = msgspec.structs.replace(wanted, namespace_ref=namespace.ref)
        place = CarriedPlace(namespace.name, namespace.kubernetes_name, self.keys, kind.compared)
        masking.refuse_masks(documents.manifest(wanted), kind.secret_paths)
        self.labelling.check("object", namespace.name, stored, wanted)
        return guarding.admitted(stored, placed, place, self.may)


class ObjectMutation(msgspec.Struct, frozen=True):
    """An object after a change, the facts that it was checked against, and the object before the change, if any."""

    carried: CarriedObject
    kind: KindFacts
    before: CarriedObject | None = None

    @property
    def warnings(self) -> list[ObjectWarning]:
        """The platform's warnings about the object."""
        carried = self.carried
        found = warnings_of(documents.manifest(carried), self.kind.compared)
        warnings = [
            ObjectWarning(BLOCKING_BUDGET, f"{documents.FIELD}.{path}", words) for path, words in found
        ]
        if former := deprecated(carried.api_version, carried.kind):
            words = (
                f"{carried.kind} of {carried.api_version} is deprecated since Kubernetes 1.{former.deprecated}, and "
                f"not served from 1.{former.removed} on: {former.advice}"
            )
            warnings.append(ObjectWarning(DEPRECATED_VERSION, f"{documents.FIELD}.apiVersion", words))
        return warnings


async def locate(
    transaction: ReadTransaction, namespace: str, key: ObjectKey, *, lock: bool = False
) -> CarriedObject:
    """Returns the object of this key.

    Raises:
        NotFound: the namespace or the object; also if the caller may not see it.
    """
    found = await repository.find(transaction, namespace, key, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found("object", str(key))
    return found


async def create(
    transaction: Transaction,
    namespace_name: str,
    given: CarriedObject,
    *,
    rights: ObjectRights,
    default_policy: bool = False,
) -> ObjectMutation:
    """Creates an object. `default_policy`: sets the kind's default drift policy, for a caller that gives none.

    Raises:
        InvalidArgument: the document is invalid; names the path in it.
        NotFound: the namespace.
        AlreadyExists: the name, among the objects of its group and kind.
        FailedPrecondition: the namespace is inactive or being deleted, the kind is not open, or a host is not allowed.
        PermissionDenied: the caller lacks the permission for a part.
        ResourceExhausted: the limit of the kind; for an autoscaler, the quota of its container's namespace.
    """
    wanted = documents.completed(given, (namespace_name,))
    if default_policy:
        wanted = with_default_policy(wanted)
    namespace = await locate_namespace(transaction, namespace_name, "update")
    refuse_inactive_namespace(namespace)
    await scaling.lock_quota(transaction, namespace, wanted)
    admitted, kind = await admitted_new(transaction, namespace, wanted, rights)
    created = await _insert(transaction, namespace, admitted, kind)
    await scaling.count(transaction, namespace, created)
    return ObjectMutation(created, kind)


async def admitted_new(
    transaction: ReadTransaction, namespace: Namespace, wanted: CarriedObject, rights: ObjectRights
) -> tuple[CarriedObject, KindFacts]:
    """Returns a new object with its rights, and the facts that it was checked against. Raises as `create`."""
    kind = await facts.of_kind(transaction, namespace, wanted)
    kinds.refuse_closed(wanted.api_version, wanted.kind, opened=kind.is_opened)
    guarding.refuse_protecting(namespace.name, wanted, rights.may)
    return rights.check(namespace, None, wanted, kind), kind


async def admitted_change(
    transaction: ReadTransaction,
    namespace: Namespace,
    stored: CarriedObject,
    wanted: CarriedObject,
    rights: ObjectRights,
) -> tuple[CarriedObject, KindFacts]:
    """Returns a changed object with its rights, and the facts that it was checked against. Raises as `change`."""
    guarding.refuse_protected(stored, wanted, rights.may)
    kind = await facts.of_kind(transaction, namespace, wanted)
    kinds.refuse_closed(wanted.api_version, wanted.kind, opened=kind.is_opened)
    return rights.check(namespace, stored, wanted, kind), kind


async def change(
    transaction: Transaction,
    namespace_name: str,
    key: ObjectKey,
    merge: Callable[[CarriedObject], CarriedObject],
    check: Callable[[CarriedObject], None],
    *,
    rights: ObjectRights,
    default_policy: bool = False,
) -> ObjectMutation:
    """Changes the desired state: `merge` returns the stored object with the caller's fields.

    Raises:
        InvalidArgument: the document is invalid.
        NotFound: the namespace or the object.
        FailedPrecondition: it is being deleted, its kind is no longer open, or a host is not allowed.
        Aborted: from `check`, the etag is not the current one.
        PermissionDenied: the caller lacks the permission for a part, or may not change the object.
        ResourceExhausted: an autoscaler allows more pods than the quota.
    """
    namespace = await locate_namespace(transaction, namespace_name, "share")
    await scaling.lock_quota(transaction, namespace, key)
    stored = await locate(transaction, namespace_name, key, lock=True)
    check(stored)
    refuse_deleting(stored, key)
    wanted = documents.merged(stored, merge(stored), (namespace_name,))
    if default_policy:
        wanted = with_default_policy(wanted)
    if wanted == stored:
        return ObjectMutation(stored, KindFacts(), stored)
    admitted, kind = await admitted_change(transaction, namespace, stored, wanted, rights)
    written = await repository.update_object(transaction, stored, admitted)
    await changed(transaction, written, "modified", stored)
    await scaling.count(transaction, namespace, stored, written)
    return ObjectMutation(written, kind, stored)


async def delete(
    transaction: Transaction,
    namespace: str,
    key: ObjectKey,
    check: Callable[[CarriedObject], None],
    may: May,
) -> CarriedObject:
    """Marks an object for deletion. An object that is marked already is returned unchanged.

    Raises:
        NotFound: the namespace or the object.
        PermissionDenied: the caller may not delete the object.
    """
    located = await locate_namespace(transaction, namespace, "share")
    await scaling.lock_quota(transaction, located, key)
    stored = await locate(transaction, namespace, key, lock=True)
    check(stored)
    refuse_deletion(located, stored, may)
    marked = await _delete(transaction, stored)
    await scaling.count(transaction, located, marked)
    return marked


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Deletes every object of a namespace."""
    found = [item.id async for item in repository.stream_objects(transaction, namespace_id=namespace.id)]
    for object_id in sorted(found):
        stored = await repository.get(transaction, object_id, lock=True)
        if stored is not None:
            await _delete(transaction, stored)


async def refuse_cascade(transaction: ReadTransaction, namespace: NamespaceRef, may: May) -> None:
    """Raises PermissionDenied if a namespace contains an object that the caller may not delete."""
    if not may(PRIVILEGED_OBJECT) and (found := await repository.first_protected(transaction, namespace.id)):
        guarding.refuse_protected(found, None, may)


async def forget_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every object of a namespace from the database and emits its deletion; the cluster keeps the objects."""
    found = [item async for item in repository.stream_objects(transaction, namespace_id=namespace.id)]
    for item in sorted(found, key=lambda item: item.id):
        await repository.delete_object(transaction, item.id)
        transaction.emit(event(item, "deleted", item))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many objects a namespace contains, including those being deleted."""
    return {"objects": await repository.count_all(transaction, namespace_id)}


def event(carried: CarriedObject, kind: Kind, before: CarriedObject | None = None) -> Event:
    """Returns the event of a change of an object."""
    return Event(
        resource_type="object",
        resource_id=carried.id,
        namespace_id=carried.namespace_id,
        name=carried.name,
        kind=kind,
        entity=carried,
        labels=carried.labels,
        status=carried.observed.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.observed.status,
    )


def with_default_policy(wanted: CarriedObject) -> CarriedObject:
    """Returns the object with its kind's default drift policy: an operator may own parts of a custom resource."""
    custom = kinds.is_custom(wanted.api_version, wanted.kind)
    return msgspec.structs.replace(wanted, drift_policy="report" if custom else "repair")


async def _insert(
    transaction: Transaction, namespace: Namespace, wanted: CarriedObject, kind: KindFacts
) -> CarriedObject:
    """Inserts an object, emits its event and enqueues its work.

    Raises AlreadyExists if the namespace has an object of this kind and name, ResourceExhausted if it has reached its
    limit for the kind.
    """
    alone = transaction.batched_work is None
    inserted = await repository.insert_object(transaction, wanted, kind.most, with_work=alone)
    if (created := inserted.carried) is not None:
        if alone:
            transaction.emit(event(created, "added"))
        else:
            await changed(transaction, created, "added")
        return created
    if inserted.is_taken:
        key = ObjectKey(wanted.api_version, wanted.kind, wanted.name)
        raise already_exists("object", str(key), being_deleted=inserted.is_deleting)
    raise exceeded(namespace, wanted, kind, inserted.used)


def exceeded(namespace: Namespace, wanted: CarriedObject, kind: KindFacts, used: int) -> ResourceExhausted:
    """Returns the error for a namespace that has reached its limit of objects of a kind."""
    return ResourceExhausted(
        f'quota of namespace "{namespace.name}" exceeded: {used} objects of kind {wanted.kind} used, 1 requested, '
        f"{kind.most} allowed",
        reason="QUOTA_EXCEEDED",
        metadata={"resource": wanted.kind, "limit": str(kind.most), "used": str(used), "asked": "1"},
    )


def refuse_deletion(namespace: Namespace, stored: CarriedObject, may: May) -> None:
    """Raises PermissionDenied for an object that the caller may not delete."""
    guarding.refuse_protected(stored, None, may)
    if namespace.network_policies == "protected":
        guarding.refuse_protected_policy(stored, may)


def refuse_deleting(stored: CarriedObject, key: ObjectKey) -> None:
    """Raises FailedPrecondition if an object is being deleted."""
    if stored.deletion_requested_at is not None:
        raise FailedPrecondition(f'object "{key}" is being deleted', reason="OBJECT_TERMINATING")


async def changed(
    transaction: Transaction, carried: CarriedObject, kind: Kind, before: CarriedObject | None = None
) -> None:
    """Emits the event of a change, and enqueues the object for the reconciler."""
    transaction.emit(event(carried, kind, before))
    going = carried.deletion_requested_at is not None
    await transaction.enqueue("object", carried.id, carried.cluster_name, carried.namespace_id, going=going)


async def _delete(transaction: Transaction, stored: CarriedObject) -> CarriedObject:
    if stored.deletion_requested_at is not None:
        return stored
    marked = await repository.mark_for_deletion(transaction, stored)
    await changed(transaction, marked, "modified", stored)
    return marked
