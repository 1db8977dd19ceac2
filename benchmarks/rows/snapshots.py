"""Rows 2 and 5 while a snapshot is held open, as by a dump, a long report or a first state that takes minutes.

PostgreSQL keeps all rows that a snapshot could see. So dead short-lived rows (pending changes, quota differences)
remain, and scans for live rows visit them. Two servers, each with its own database, get the same load for a while; in
one of the databases, a transaction that started earlier stays open. Then both servers are measured in turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.measure import Figure, Run, compared, in_turns
from benchmarks.rows.watching import LATENCY_WATCHERS, Changes
from benchmarks.rows.writing import CLIENTS, create
from benchmarks.testbed import Testbed, connected


async def snapshot(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures CreateContainer, and change to delivery, with the snapshot against without."""
    seconds, runs, warm = testbed.scale.held_seconds, testbed.scale.runs, testbed.scale.warm
    async with AsyncExitStack() as stack:
        sides, changes = [], []
        for _ in range(2):
            database = await stack.enter_async_context(testbed.database(testbed.scale.containers[0]))
            product = await stack.enter_async_context(testbed.product(database))
            calls, watches = await stack.enter_async_context(
                testbed.children(
                    ("loads.calls", testbed.cores.asking), ("loads.watches", testbed.cores.asking)
                )
            )
            sides.append((product, database, calls, await product.tenant_token()))
            changes.append(await Changes.made(testbed, product, database, watches))
        held = await stack.enter_async_context(connected(sides[0][1].superuser))
        await held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await held.fetchval("SELECT revision FROM stream_head")

        async def created(side: int, length: float) -> Run:
            product, database, calls, token = sides[side]
            made = create(calls, product.address, token, length)
            return await testbed.metered(product.process_id, database, made)

        # The load runs on both servers in parallel; a longer load leaves more dead rows.
        await asyncio.gather(*(created(side, seconds) for side in range(2)))
        creates = await in_turns(
            lambda: created(0, testbed.scale.seconds),
            lambda: created(1, testbed.scale.seconds),
            runs,
            warm=warm,
        )
        deliveries = await in_turns(changes[0].run, changes[1].run, runs, warm=warm)
    held_open = f"a snapshot held open for {seconds:g} s of it"
    yield compared("2", f"CreateContainer, {CLIENTS} clients, {held_open}", "/s", creates, "without it")
    what = f"change to delivery, p99 of {LATENCY_WATCHERS} watchers, {held_open}"
    yield compared("5", what, "ms", deliveries, "without it")
