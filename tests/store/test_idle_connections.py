"""A pool keeps its used connections, and only a few of the unused ones."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from sqlalchemy import text

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Engines
from tests.conftest import Database

OPEN, IDLE = 6, 2


async def test_connections_unused_for_a_whole_period_are_closed(database: Database) -> None:
    settings = Settings(
        database_url=database.app_dsn,
        system_database_url=database.system_dsn,
        maintenance_database_url=database.maintenance_dsn,
        pool_open_connections=OPEN,
        pool_idle_connections=IDLE,
    )
    engines = Engines.connect(settings)
    unneeded = engines.app

    async def use(count: int) -> set[int]:
        """Returns the backends of `count` concurrently used connections."""
        async with AsyncExitStack() as stack:
            used = [await stack.enter_async_context(engines.app.connect()) for _ in range(count)]
            query = text("SELECT pg_backend_pid()")
            return {(await each.execute(query)).scalar_one() for each in used}

    try:
        first = await use(OPEN)
        # Returned connections are reused, and none is opened.
        assert await use(OPEN) == first
        unneeded.begin_period()
        await use(OPEN)
        assert unneeded.close_unneeded() == 0
        unneeded.begin_period()
        await asyncio.gather(use(1), use(1))
        assert await use(4) < first
        assert unneeded.close_unneeded() == 0
        unneeded.begin_period()
        await use(1)
        assert unneeded.close_unneeded() == OPEN - 1 - IDLE
        unneeded.begin_period()
        assert unneeded.close_unneeded() == 1
        assert await use(IDLE) < first
        unneeded.begin_period()
        assert unneeded.close_unneeded() == 0
    finally:
        await engines.close()
