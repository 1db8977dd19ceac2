"""A pool that closes connections which were not needed for a while.

SQLAlchemy's own closes each connection beyond its size as soon as it comes back, so that under a load of more
callers than that nearly every call would open a connection of its own, which costs more than the call. This one
keeps what it has opened, and gives up what stayed unused through a whole period, down to the number of idle
connections that are wanted.
"""

from __future__ import annotations

import asyncio
import contextlib

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

PERIOD_SECONDS = 30.0


class ShrinkingPool(AsyncAdaptedQueuePool):
    """The next `surplus` connections that come back are closed, as those beyond the size of its parent are."""

    surplus = 0
    # SQLAlchemy reads `_sqla_logger_namespace`: what a pool has to say is not ours to log, but at its own level.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.ShrinkingPool"

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self.surplus <= 0:
            super()._do_return_conn(record)
            return
        self.surplus -= 1
        try:
            record.close()
        finally:
            self._dec_overflow()


class IdleConnections:
    """Those of one engine, which has a `ShrinkingPool`. `idle`: how many may stay unused."""

    def __init__(self, engine: AsyncEngine, idle: int) -> None:
        assert isinstance(engine.pool, ShrinkingPool)
        self._engine = engine
        self._pool = engine.pool
        self._idle = idle
        # The fewest that were free at once since the last look: so many were not needed.
        self._fewest = 0
        event.listen(engine.sync_engine, "checkout", self._taken)

    def _taken(self, *_: object) -> None:
        self._fewest = min(self._fewest, self._pool.checkedin())

    async def run(self) -> None:
        """Look every now and then until cancelled."""
        while True:
            self.begin()
            await asyncio.sleep(PERIOD_SECONDS)
            await self.close_unneeded()

    def begin(self) -> None:
        """Begin a period."""
        self._fewest = self._pool.checkedin()

    async def close_unneeded(self) -> int:
        """End the period; answers how many connections were too many."""
        surplus = max(0, min(self._fewest, self._pool.checkedin()) - self._idle)
        self._pool.surplus = surplus
        with contextlib.suppress(SQLAlchemyError, OSError):
            for _ in range(surplus):
                # It comes back at once, and is closed.
                async with self._engine.connect():
                    pass
        self._pool.surplus = 0
        return surplus
