"""A lease that is lost while the work under it winds up slowly: whoever leads can still be cancelled."""

from __future__ import annotations

import asyncio

from pilothouse_server.reconcile.queue.leadership import lead
from pilothouse_server.reconcile.repository.leases import Lease
from tests.reconcile.world import World
from tests.waiting import within

LEASE_SECONDS = 0.5
# Far beyond what ending takes, so that only a leader that goes on for ever runs into it.
LIMIT_SECONDS = 20.0


class SlowToEnd:
    """Work that takes its time to end once it is cancelled, as when a transaction is rolled back."""

    def __init__(self) -> None:
        self.began, self.winding_up, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, lease: Lease) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.winding_up.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()


async def test_a_leader_cancelled_while_a_lost_lease_is_wound_up_ends(here: World) -> None:
    work = SlowToEnd()
    leading = asyncio.create_task(lead(here.store, "observe/local", "this", work, seconds=LEASE_SECONDS))
    async with within(LIMIT_SECONDS):
        await work.began.wait()
        async with here.database.system() as sql:
            # Another server holds it from now on.
            await sql.execute(
                "UPDATE leases SET owner = 'other', epoch = epoch + 1,"
                " expires_at = clock_timestamp() + interval '1 hour'"
            )
        await work.winding_up.wait()
        leading.cancel()
        await asyncio.wait([leading])
    assert leading.cancelled()
    assert work.ended.is_set()
