"""Closes the sessions of a PostgreSQL server that disappeared without closing them.

A machine that loses its power or its network closes no connection: a caller that waits for its answer waits
until its own deadline, although a standby took its place long ago. So a statement that goes unanswered for
some seconds is reason to ask, by a new connection, whether the processes that serve our sessions are still
there. Those that are not are ended, and with each the call that waits for it (`DATABASE_UNAVAILABLE`, to be
tried again). Where no new connection can be had either, all are.

A statement that only takes long is left alone: its process is there.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg
import structlog

from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import CONNECTION_LOST
from pilothouse_server.store.pool import Pool

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
# After so many looks PostgreSQL is asked, then after twice as many, and so on: a long report is asked about seldom.
FIRST_LOOKS: Final = 2
_PROCESSES = "SELECT pid FROM pg_stat_activity WHERE pid = ANY ($1) AND usename = session_user"


class LostSessions:
    """The watch over one pool. Behind a pooler (`direct` is False) only the pooler itself can be asked about."""

    def __init__(self, pool: Pool, *, direct: bool) -> None:
        self._pool = pool
        self._direct = direct
        self._looks: dict[Connection, int] = {}

    def is_to_ask(self) -> bool:
        """Counts once more how often each statement was seen unanswered; returns whether it is time to ask."""
        before = self._looks
        self._looks = {waiting: before.get(waiting, 0) + 1 for waiting in self._pool.waiting_for_answers}
        return any(_is_due(looks) for looks in self._looks.values())

    async def end_lost(self) -> int:
        """Asks which sessions are served still, and ends the others; returns how many."""
        sessions = self._pool.sessions()
        living = await self._living(list(sessions))
        lost = [driver for process, driver in sessions.items() if process not in living]
        for driver in lost:
            driver.terminate()
        if lost:
            log.warning("database sessions were lost", count=len(lost))
        return len(lost)

    async def _living(self, processes: list[int]) -> frozenset[int]:
        try:
            asking = await self._pool.open_session()
        except asyncpg.PostgresError:
            # It answers, if only that it has no place: then it is there.
            return frozenset(processes)
        except CONNECTION_LOST:
            return frozenset()
        try:
            if not self._direct:
                return frozenset(processes)
            rows: list[Any] = await asking.fetch(_PROCESSES, processes, timeout=LOOK_SECONDS)
            return frozenset(row["pid"] for row in rows)
        except CONNECTION_LOST:
            return frozenset(processes)
        finally:
            asking.terminate()


def _is_due(looks: int) -> bool:
    return looks >= FIRST_LOOKS and looks & (looks - 1) == 0


async def watch_over(*watches: LostSessions) -> None:
    """Looks again and again, until cancelled. One pool that cannot be asked does not keep the others waiting."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if due := [watch.end_lost() for watch in watches if watch.is_to_ask()]:
            await asyncio.gather(*due)
