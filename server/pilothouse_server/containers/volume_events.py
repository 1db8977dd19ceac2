"""Writes the rows and events of the volumes of StatefulSets' claims.

A change of a container that changes its claims writes a row of `claim_changes`, and `store.follow_ups` then calls this
module to write the volumes. A volume has an owner while one of the owner's pods needs it. Once no pod needs it, the
volume has no owner: callers delete it like any other, and a StatefulSet of the same name becomes its owner again. If
the cluster deletes the claim by the retention policy, the row is marked to be deleted with the claim.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.containers import repository
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.owned_volumes import claims_document, deleted_by_policy, owned_volume
from pilothouse_server.storage import operations
from pilothouse_server.storage.model import Claims, Volume
from pilothouse_server.store.unit_of_work import Store, Transaction

# The most rows of each kind that one transaction writes; a StatefulSet may have 80,000 claims.
_BATCH_ROWS = 200


async def write_owned_volumes(store: Store) -> bool:
    """Writes the volumes of one container; returns False if nothing is left, or if another server writes them."""
    async with store.system_look() as look:
        if not await operations.has_claim_changes(look):
            return False
    async with store.system_write() as transaction:
        if not await operations.take_turn(transaction):
            return False
        await _release(transaction, await operations.without_owner(transaction, _BATCH_ROWS))
        container_id = await operations.take_claim_change(transaction)
        if container_id is not None and (found := await repository.get_many(transaction, [container_id])):
            await _write(transaction, found[0])
    return True


async def _release(transaction: Transaction, volumes: list[Volume]) -> None:
    """Removes the owner from volumes whose container was deleted."""
    alone = [msgspec.structs.replace(each, owner="", owner_id=None) for each in volumes]
    await _write_owners(transaction, volumes, alone)


async def _write(transaction: Transaction, container: Container) -> None:
    claims = Claims(container.id, container.namespace_id, claims_document(container))
    released = await operations.not_needed(transaction, claims, _BATCH_ROWS)
    ends = deleted_by_policy(container)
    alone = [
        msgspec.structs.replace(each, owner="", owner_id=None, ends_with_claim=ends) for each in released
    ]
    taken = await operations.of_others(transaction, claims, _BATCH_ROWS)
    ours = [
        msgspec.structs.replace(each, owner=container.name, owner_id=container.id, ends_with_claim=False)
        for each in taken
    ]
    await _write_owners(transaction, [*released, *taken], [*alone, *ours])
    # The claims of an imported StatefulSet existed before its import; only a later change can need new ones.
    given_back = container.spec.taken_over is not None and container.generation == 1
    missing = await operations.missing_claims(transaction, claims, _BATCH_ROWS)
    new = [owned_volume(container, *each, given_back=given_back) for each in missing]
    made = await operations.insert_owned(transaction, new)
    for each in made:
        transaction.emit(operations.event(each, "added"))
    if _BATCH_ROWS in (len(released), len(taken), len(made)):
        await operations.note_claims(transaction, claims)


async def _write_owners(transaction: Transaction, before: list[Volume], after: list[Volume]) -> None:
    former = {each.id: each for each in before}
    for each in await operations.update_owners(transaction, after):
        transaction.emit(operations.event(each, "modified", former[each.id]))
