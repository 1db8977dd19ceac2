"""An idle worker polls rarely, but executes work when it is due: the lease query returns the time of the next item."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.feed import Feed
from pilothouse_server.watch.hub import Hub
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import poll_until

# Polling alone would never find the work in time.
SELDOM = msgspec.structs.replace(QUICK, worker=WorkerSettings(poll_seconds=3600.0))


@pytest.mark.parametrize(
    "later",
    [
        "due_at = clock_timestamp() + interval '1 second'",
        # The state that a server leaves if it is killed during its work.
        "due_at = clock_timestamp() + interval '1 second', leased_until = clock_timestamp() + interval '1 second', "
        "lease_owner = 'killed', lease_epoch = 7",
    ],
)
async def test_work_is_executed_when_it_becomes_due(here: Environment, later: str) -> None:
    await here.namespace("shop")
    async with here.database.system() as sql:
        await sql.execute(f"UPDATE reconcile_work SET {later}")

    async def leases() -> int:
        return int((await here.rows("SELECT lease_epoch FROM reconcile_work"))[0]["lease_epoch"])

    before = await leases()
    async with here.reconciling(SELDOM):
        await poll_until(leases, lambda epoch: epoch > before, what="the lease of what became due")


async def test_work_that_another_server_left_due_is_found_by_the_feed(here: Environment) -> None:
    await here.namespace("shop")
    feed = Feed(here.store, Hub(16))

    async def leases() -> int:
        return int((await here.rows("SELECT lease_epoch FROM reconcile_work"))[0]["lease_epoch"])

    async def released() -> bool:
        later = "SELECT due_at > clock_timestamp() + interval '1 minute' AS later FROM reconcile_work"
        return bool((await here.rows(later))[0]["later"])

    async with here.reconciling(SELDOM) as reconciler:
        feed.on_changes = reconciler.wake
        running = asyncio.ensure_future(feed.run())
        try:
            await feed.started()
            # The first comparison with the cluster may request more work after the worker's first lease.
            await poll_until(released, what="the first reconciliation")
            before = await leases()
            async with here.database.system() as sql:
                await sql.execute("UPDATE reconcile_work SET due_at = clock_timestamp()")
            await poll_until(leases, lambda epoch: epoch > before, what="the lease of what is due")
        finally:
            await cancel_and_wait(running)


async def test_work_leased_by_another_server_causes_no_polling(here: Environment) -> None:
    """A row requested again during its lease is due, but no other worker may lease it: no hot loop."""
    await here.namespace("shop")
    async with here.database.system() as sql:
        await sql.execute(
            "UPDATE reconcile_work SET leased_until = clock_timestamp() + interval '1 hour', lease_owner = 'other'"
        )
    async with here.store.system_call() as connection:
        found = await work_queue.lease(connection, owner="test", lease_seconds=1.0, most=10)
    assert (found.works, found.next_seconds) == ([], None)
