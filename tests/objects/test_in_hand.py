"""Observers leave the state of a new object, and of a new Service, to the worker that has leased its work."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy import text

from pilothouse.network.v1 import network_pb2
from pilothouse_server.reconcile.repository.object_status import OBJECTS
from pilothouse_server.reconcile.repository.observed_rows import ObservedRows
from pilothouse_server.reconcile.repository.service_status import SERVICES
from tests.objects.conftest import ACCOUNT, Place
from tests.waiting import poll_until

Rows = ObservedRows[Any, Any]


async def free(place: Place, rows: Rows, uid: str, *, generation: int, hours: int) -> list[str]:
    """Returns the uid if an observer would write the row, in a transaction that is rolled back.

    `generation`: the observed one. `hours`: the remaining time of a lease whose owner does nothing, as if the worker's
    result were still to come.
    """
    applied = text(
        f"UPDATE {rows.table} SET observed_generation = :generation WHERE uid = CAST(:uid AS uuid) RETURNING id"
    )
    lease = text(
        "UPDATE reconcile_work SET lease_owner = 'x', leased_until = now() + make_interval(hours => :hours) "
        "WHERE resource_type = :type AND resource_id = :id"
    )
    found: list[str] = []
    with suppress(ZeroDivisionError):
        async with place.server.application.store.system_write() as transaction:
            connection = transaction.connection
            changed = await connection.execute(applied, {"uid": uid, "generation": generation})
            work = {"type": rows.work, "id": changed.scalar_one(), "hours": hours}
            await connection.execute(lease, work)
            found += [uid for _ in await rows.lock_free_uids(transaction, "local", [uid])]
            raise ZeroDivisionError
    return found


async def check(place: Place, rows: Rows, uid: str) -> None:
    """Compares leased rows with rows that are not leased."""

    async def at_last(generation: int, hours: int) -> list[str]:
        # The real observer may have locked the row at this moment.
        return await poll_until(
            lambda: free(place, rows, uid, generation=generation, hours=hours), bool, what="a free row"
        )

    assert await at_last(0, -1) == [uid], "a worker that is gone writes nothing"
    assert await at_last(1, 1) == [uid], "a change of what is there is shown"
    assert await free(place, rows, uid, generation=0, hours=1) == []


async def test_a_new_object_that_is_leased_is_left_to_its_worker(place: Place) -> None:
    made = await place.make(ACCOUNT, {"automountServiceAccountToken": False})
    await place.settled(ACCOUNT)
    await check(place, OBJECTS, made.uid)


async def test_a_new_service_that_is_leased_is_left_to_its_worker(place: Place) -> None:
    service = network_pb2.Service(
        name="web", selector={"app": "web"}, ports=[network_pb2.ServicePort(port=80)]
    )
    made = await place.client.network.create_service(namespace=place.name, service=service)

    async def there() -> bool:
        return not (await place.client.network.get_service(namespace=place.name, name="web")).reconciling

    await poll_until(there, what="the Service on the cluster")
    await check(place, SERVICES, made.uid)
