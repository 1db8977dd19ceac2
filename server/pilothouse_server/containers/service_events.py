"""Writes the rows and events of the Services of containers' ports.

A change of a container that changes its Services writes a row of `service_changes`, and `store.follow_ups` then calls
this module to write the Services. So a create writes only one small row more. Names, the quota and the cluster's
objects depend on the ports alone. Service rows of a deleted container no longer reference it, and are deleted as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from pilothouse_server.containers import repository
from pilothouse_server.containers.owned_services import owned_services
from pilothouse_server.network import operations
from pilothouse_server.network.model import Service
from pilothouse_server.store.unit_of_work import Store, Transaction

_BATCH_CONTAINERS = 100


async def write_owned_services(store: Store) -> bool:
    """Writes the Services of some containers; returns False if nothing is left, or if another server writes them."""
    async with store.system_look() as look:
        if not await operations.has_service_changes(look):
            return False
    async with store.system_write() as transaction:
        ids = await operations.take_service_changes(transaction, _BATCH_CONTAINERS)
        if ids is None:
            return False
        containers = await repository.get_many(transaction, ids)
        wanted = {
            service.uid: service
            for container in containers
            if container.deletion_requested_at is None
            for service in owned_services(container)
        }
        going = {each.id for each in containers if each.deletion_requested_at is not None}
        await _write(transaction, await operations.owned_services(transaction, ids), wanted, going)
    return True


async def _write(
    transaction: Transaction,
    stored: Sequence[Service],
    wanted: Mapping[str, Service],
    going: Collection[int | None],
) -> None:
    """Brings the rows to the desired state. Deletes rows first, because new rows may have their names and uids."""
    before = {
        each.uid: each
        for each in stored
        if each.owner_id is not None and (each.owner_id in going or each.uid in wanted)
    }
    kept = {each.id for each in before.values()}
    gone = [each for each in stored if each.id not in kept]
    await operations.delete_owned(transaction, [each.id for each in gone])
    for each in gone:
        transaction.emit(operations.event(each, "deleted", each))
    marked = [
        each.id for each in before.values() if each.owner_id in going and each.deletion_requested_at is None
    ]
    differing = [
        changed
        for uid, each in wanted.items()
        if (there := before.get(uid)) and (changed := _with_desired(there, each)) != there
    ]
    written = await operations.mark_owned(transaction, marked)
    written += await operations.update_owned(transaction, differing)
    for each in written:
        transaction.emit(operations.event(each, "modified", before[each.uid]))
    new = [each for uid, each in wanted.items() if uid not in before]
    for each in await operations.insert_owned(transaction, new):
        transaction.emit(operations.event(each, "added"))


def _with_desired(stored: Service, wanted: Service) -> Service:
    return msgspec.structs.replace(
        stored,
        type=wanted.type,
        spec=wanted.spec,
        labels=wanted.labels,
        annotations=wanted.annotations,
        drift_policy=wanted.drift_policy,
    )
