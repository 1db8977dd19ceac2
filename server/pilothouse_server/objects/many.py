"""Creates, changes or deletes objects of one kind with few statements for all.

Each object is checked by the rules of a single call, as if none of the others were written. So kinds that depend on
each other, such as Roles and RoleBindings, must be written one after the other. Autoscalers are counted against the
quota once all are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pilothouse_server.authorization.access import May
from pilothouse_server.errors import already_exists, not_found
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.objects import documents, repository, scaling
from pilothouse_server.objects.facts import KindFacts
from pilothouse_server.objects.model import CarriedObject, ObjectKey
from pilothouse_server.objects.operations import (
    ObjectMutation,
    ObjectRights,
    admitted_change,
    admitted_new,
    changed,
    exceeded,
    refuse_deleting,
    refuse_deletion,
    with_default_policy,
)
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import Transaction


async def create_many(
    transaction: Transaction, namespace_name: str, given: Sequence[CarriedObject], *, rights: ObjectRights
) -> dict[str, ObjectMutation]:
    """Creates objects of one kind, all or none, with the kind's default drift policy; returns them by name.

    Raises as `operations.create`.
    """
    namespace = await locate_namespace(transaction, namespace_name, "update")
    refuse_inactive_namespace(namespace)
    key = ObjectKey(given[0].api_version, given[0].kind, "")
    await scaling.lock_quota(transaction, namespace, key)
    present = await repository.lock_named(transaction, namespace.id, key, [each.name for each in given])
    for each in present:
        is_deleting = each.deletion_requested_at is not None
        raise already_exists("object", f"{each.kind} {each.name}", being_deleted=is_deleting)
    used = await repository.count_of_kind(transaction, namespace.id, key)
    admitted: list[CarriedObject] = []
    facts: dict[str, KindFacts] = {}
    async for each in cooperatively(given):
        wanted = with_default_policy(documents.completed(each, (namespace_name,)))
        made, kind = await admitted_new(transaction, namespace, wanted, rights)
        if used + len(admitted) >= kind.most:
            raise exceeded(namespace, wanted, kind, used + len(admitted))
        admitted.append(made)
        facts[made.name] = kind
    created = await repository.insert_objects(transaction, admitted)
    async for carried in cooperatively(created):
        await changed(transaction, carried, "added")
    await scaling.count(transaction, namespace, *created)
    return {each.name: ObjectMutation(each, facts[each.name]) for each in created}


async def change_many(
    transaction: Transaction,
    namespace_name: str,
    kind: ObjectKey,
    merges: Mapping[str, Callable[[CarriedObject], CarriedObject]],
    *,
    rights: ObjectRights,
) -> dict[str, ObjectMutation]:
    """Changes objects of the kind of a key, all or none; returns them by name. Raises as `operations.change`.

    `merges`: functions that return the stored object with the caller's fields.
    """
    namespace = await locate_namespace(transaction, namespace_name, "share")
    await scaling.lock_quota(transaction, namespace, kind)
    locked = await _locked(transaction, namespace, kind, list(merges))
    found = {each.name: ObjectMutation(each, KindFacts(), each) for each in locked}
    facts: dict[str, KindFacts] = {}
    admitted: list[CarriedObject] = []
    async for stored in cooperatively(locked):
        refuse_deleting(stored, ObjectKey(stored.api_version, stored.kind, stored.name))
        wanted = documents.merged(stored, merges[stored.name](stored), (namespace_name,))
        if wanted == stored:
            continue
        made, facts[stored.name] = await admitted_change(transaction, namespace, stored, wanted, rights)
        admitted.append(made)
    async for written in cooperatively(await repository.update_objects(transaction, admitted)):
        stored = found[written.name].carried
        await changed(transaction, written, "modified", stored)
        found[written.name] = ObjectMutation(written, facts[written.name], stored)
    await scaling.count(transaction, namespace, *locked, *(each.carried for each in found.values()))
    return found


async def delete_many(
    transaction: Transaction, namespace_name: str, kind: ObjectKey, names: Sequence[str], *, may: May
) -> dict[str, CarriedObject]:
    """Marks objects of the kind of a key for deletion, all or none; returns them by name.

    Raises as `operations.delete`.
    """
    namespace = await locate_namespace(transaction, namespace_name, "share")
    await scaling.lock_quota(transaction, namespace, kind)
    found = {each.name: each for each in await _locked(transaction, namespace, kind, names)}
    for each in found.values():
        refuse_deletion(namespace, each, may)
    ids = [each.id for each in found.values() if each.deletion_requested_at is None]
    async for marked in cooperatively(await repository.mark_many(transaction, ids)):
        await changed(transaction, marked, "modified", found[marked.name])
        found[marked.name] = marked
    await scaling.count(transaction, namespace, *found.values())
    return found


async def _locked(
    transaction: Transaction, namespace: Namespace, kind: ObjectKey, names: Sequence[str]
) -> list[CarriedObject]:
    locked = await repository.lock_named(transaction, namespace.id, kind, names)
    for name in sorted({*names} - {each.name for each in locked}):
        raise not_found("object", f"{kind.kind} {name}")
    return locked
