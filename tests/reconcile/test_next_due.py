"""An idle worker looks for work seldom, and yet does it when it is due: it knows when that is."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.feed import Feed
from pilothouse_server.watch.hub import Hub
from tests.reconcile.world import QUICK, World
from tests.waiting import poll_until

# It would never be found by looking.
SELDOM = msgspec.structs.replace(QUICK, worker=WorkerSettings(poll_seconds=3600.0))


@pytest.mark.parametrize(
    "later",
    [
        "due_at = clock_timestamp() + interval '1 second'",
        # As a server leaves it that is killed at its work.
        "due_at = clock_timestamp() + interval '1 second', leased_until = clock_timestamp() + interval '1 second', "
        "lease_owner = 'killed', lease_epoch = 7",
    ],
)
async def test_what_becomes_due_is_done_then(here: World, later: str) -> None:
    await here.namespace("shop")
    async with here.database.system() as sql:
        await sql.execute(f"UPDATE reconcile_work SET {later}")

    async def leases() -> int:
        return int((await here.rows("SELECT lease_epoch FROM reconcile_work"))[0]["lease_epoch"])

    before = await leases()
    async with here.reconciling(SELDOM):
        await poll_until(leases, lambda epoch: epoch > before, what="the lease of what became due")


async def test_what_another_server_left_due_is_found_by_the_feed(here: World) -> None:
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
            # The first comparison with the cluster may ask for more after the worker's first look.
            await poll_until(released, what="the first reconciliation")
            before = await leases()
            async with here.database.system() as sql:
                await sql.execute("UPDATE reconcile_work SET due_at = clock_timestamp()")
            await poll_until(leases, lambda epoch: epoch > before, what="the lease of what is due")
        finally:
            await cancel_and_wait(running)


async def test_what_somebody_else_holds_is_asked_for_no_more_often(here: World) -> None:
    """Asked for again during its lease, a row is due already, but nobody else may have it: no hot loop."""
    await here.namespace("shop")
    async with here.database.system() as sql:
        await sql.execute(
            "UPDATE reconcile_work SET leased_until = clock_timestamp() + interval '1 hour', lease_owner = 'other'"
        )
    async with here.store.system_call() as connection:
        found = await work_queue.lease(connection, owner="test", lease_seconds=1.0, most=10)
    assert (found.works, found.next_seconds) == ([], None)
