"""No work remains for a deleted resource, even if it is requested concurrently: each of the two transactions waits
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from pilothouse_server.reconcile.repository import container_status, namespace_status, work_queue
from pilothouse_server.store.unit_of_work import Transaction
from tests.reconcile.environment import Environment
from tests.waiting import poll_until, within

End = Callable[[Transaction, int], Awaitable[None]]
Requeue = Callable[[Transaction, list[int]], Awaitable[None]]
_LEFT = "SELECT resource_type, resource_id FROM reconcile_work WHERE resource_type = $1"
_WAITS = (
    "SELECT count(*) AS waiting FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


async def end_container(transaction: Transaction, container_id: int) -> None:
    """Ends a container the way a worker does when its Deployment is deleted."""
    found = await container_status.find_placed(transaction, [container_id])
    (locked,) = (
        await container_status.lock_found(
            transaction, {container_id: found[container_id].container}, wait=True
        )
    ).values()
    await container_status.delete(transaction, locked)
    await work_queue.remove(transaction, "container", container_id)


async def end_namespace(transaction: Transaction, namespace_id: int) -> None:
    locked = await namespace_status.lock(transaction, namespace_id)
    assert locked is not None
    await namespace_status.delete(transaction, locked)


async def both(here: Environment, *, deletes_first: bool, kind: str) -> Sequence[Any]:
    """Deletes a resource and requests its work; the second transaction waits for the first.

    Returns the remaining work.
    """
    namespace = await here.namespace()
    end: End = end_namespace
    requeue: Requeue = work_queue.requeue_namespaces
    id_ = int(namespace.id)
    if kind == "container":
        end, requeue, id_ = end_container, work_queue.requeue_containers, int((await here.create()).id)

    async def second() -> None:
        async with here.store.system_write("test") as transaction:
            await (requeue(transaction, [id_]) if deletes_first else end(transaction, id_))

    async with here.store.system_write("test") as transaction:
        await (end(transaction, id_) if deletes_first else requeue(transaction, [id_]))
        waiting = asyncio.create_task(second())

        async def waits() -> bool:
            return bool((await here.rows(_WAITS))[0]["waiting"])

        await poll_until(waits, what="the second, which waits for the first")
    async with within(10.0):
        await waiting
    return await here.rows(_LEFT, kind)


@pytest.mark.parametrize("deletes_first", [True, False], ids=["deleted first", "asked for first"])
@pytest.mark.parametrize("kind", ["container", "namespace"])
async def test_no_work_is_left_for_a_deleted_resource(
    here: Environment, kind: str, deletes_first: bool
) -> None:
    assert await both(here, deletes_first=deletes_first, kind=kind) == []


@pytest.mark.parametrize("kind", ["container", "namespace"])
async def test_requested_work_of_an_existing_resource_is_stored(here: Environment, kind: str) -> None:
    """The control: a resource that is not deleted has its work."""
    namespace = await here.namespace()
    container = await here.create()
    await here.change(lambda transaction: work_queue.requeue_containers(transaction, [int(container.id)]))
    await here.change(lambda transaction: work_queue.requeue_namespaces(transaction, [int(namespace.id)]))
    assert len(await here.rows(_LEFT, kind)) == 1
