"""Deletes members after a step: hooks by their deletion policies, and pruned members after everything else.

The deletions are a transaction of their own. Each object has an audit record that names the operation of the revision.
If a noun refuses to delete an object, the object stays for now.
"""

from __future__ import annotations

from collections.abc import Collection

from pilothouse_server.applications import repository
from pilothouse_server.applications.comparison import PERMISSIONS
from pilothouse_server.applications.model import NOUNS, ApplicationResource, Member
from pilothouse_server.applications.operations import ApplyingCaller, Check, begun, event, locate
from pilothouse_server.applications.present import stored_objects
from pilothouse_server.applications.writing import ObjectWriter, WrittenObject
from pilothouse_server.errors import PilothouseError
from pilothouse_server.store.unit_of_work import Transaction


async def remove(
    transaction: Transaction,
    application: ApplicationResource,
    members: Collection[Member],
    check: Check,
    caller: ApplyingCaller,
) -> tuple[list[WrittenObject], list[PilothouseError]]:
    """Deletes members of an application; returns the deleted objects and the refusals.

    Raises:
        NotFound: the application.
        Aborted: a call that writes several objects is in progress in the namespace, or from `check`.
    """
    namespace = await begun(transaction, application.namespace, active=False)
    before = await locate(transaction, application.namespace, application.name, lock=True)
    check(before)
    stored = await stored_objects(transaction, namespace, {each.key.noun for each in members})
    writer = ObjectWriter(transaction, namespace.name, caller.rights, caller.may)
    deleted, refusals = list[WrittenObject](), list[PilothouseError]()
    for member in sorted(members, key=lambda each: (-NOUNS.index(each.key.noun), each.key)):
        if member.key not in stored or not caller.may(f"{PERMISSIONS[member.key.noun]}.delete"):
            continue
        try:
            async with writer.attempt():
                deleted.append(await writer.delete(member.key, stored[member.key]))
        except PilothouseError as error:
            refusals.append(error)
    gone = {each.key for each in deleted}
    left = [
        each for each in before.members if not each.pruned or (each.key in stored and each.key not in gone)
    ]
    if deleted or len(left) < len(before.members):
        await repository.replace_members(transaction, before, left)
        after = await repository.get(transaction, before.id)
        transaction.emit(event(after, "modified", before))
    return deleted, refusals
