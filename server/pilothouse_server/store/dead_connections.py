"""Dead-connection reaper: ends connections to a PostgreSQL server that vanished.

A machine that loses its power or its network closes no connection: a caller would wait until its own deadline,
although a standby has long been promoted. Therefore, when a statement has no response for some seconds, the server
opens a new connection and queries `pg_stat_activity` for the backend processes of its connections. It terminates
connections whose process no longer exists, and the calls that wait for them fail with `DATABASE_UNAVAILABLE`, which
clients retry. If no new connection can be opened either, all connections are terminated.

A statement that is only slow is left alone: its process still exists.
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
# The first check comes after a statement was pending in this many looks, the next after twice as many, and so on, so
# that a long query is rarely checked.
FIRST_LOOKS: Final = 2
_PROCESSES = "SELECT pid FROM pg_stat_activity WHERE pid = ANY ($1) AND usename = session_user"


class DeadConnectionReaper:
    """Detects dead connections in one pool and terminates them.

    `direct` is False behind a pooler: backend processes cannot be queried there, so the check is only whether the
    pooler accepts a new connection.
    """

    def __init__(self, pool: Pool, *, direct: bool) -> None:
        self._pool = pool
        self._direct = direct
        self._looks: dict[Connection, int] = {}

    def must_check(self) -> bool:
        """Counts the looks in which each statement was pending; returns whether to check."""
        before = self._looks
        self._looks = {waiting: before.get(waiting, 0) + 1 for waiting in self._pool.waiting_for_answers}
        return any(_is_due(looks) for looks in self._looks.values())

    async def close_dead(self) -> int:
        """Terminates connections whose backend process is missing; returns their number."""
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
            # PostgreSQL responds, even if only with an error such as too many connections: its processes are alive.
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


async def watch_over(*watches: DeadConnectionReaper) -> None:
    """Checks all pools every `LOOK_SECONDS`, until cancelled.

    Checks run concurrently: a dead server does not delay the others.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if due := [watch.close_dead() for watch in watches if watch.must_check()]:
            await asyncio.gather(*due)
