"""The faults of a campaign's servers.

They are injected one after the other, spread over the campaign's mutations.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.conftest import connection
from tests.promises.watches.environment import Environment
from tests.waiting import poll_until, runs_out

# How long a server is frozen or its connections are held. The long time, which is rare, exceeds the time that a
# stream may be silent.
_SHORT_SECONDS, _LONG_SECONDS = 0.7, 5.0
_LISTENERS = "application_name = 'pilothouse-listener'"
_BACKENDS = "usename IN ('pilothouse_app', 'pilothouse_system') AND NOT (" + _LISTENERS + ")"


class Faults:
    """Injects faults at regular numbers of mutations. The seed decides the details."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._choose = random.Random(f"faults {environment.size.seed}")
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self.kill_a_server,
            self.end_backends,
            self.end_listeners,
            self.freeze_a_server,
            self.cut_connections,
            self.end_backends,
            self.hold_connections,
            self.cut_connections,
            self.end_listeners,
            self.freeze_a_server,
        ]

    async def run(self) -> None:
        """Injects all kinds in turn, as many faults as the size says."""
        size, progress = self._environment.size, self._environment.progress
        for number in range(size.faults):
            await progress.reached(size.mutations * (number + 1) // (size.faults + 1))
            kind = self._kinds[number % len(self._kinds)]
            await kind()
            self._environment.recording.counts[f"fault: {kind.__name__}"] += 1

    def _server(self) -> int:
        return self._choose.randrange(len(self._environment.servers))

    async def kill_a_server(self) -> None:
        """Kills a server with SIGKILL, and starts it again on another port."""
        server = self._environment.servers[self._server()]
        await server.kill()
        await server.start()

    async def freeze_a_server(self) -> None:
        """Freezes a server with all its locks and leases for a while, and thaws it."""
        server = self._environment.servers[self._server()]
        server.freeze()
        try:
            await self._pass()
        finally:
            server.thaw()

    async def hold_connections(self) -> None:
        """Holds the data of a server's client connections for a while.

        The connections stay open. Then the data is delivered together, or the connections are cut.
        """
        front = self._environment.servers[self._server()].front
        front.hold()
        await self._pass()
        if self._choose.random() < 0.5:
            front.cut(self._choose)
        front.let_go()

    async def cut_connections(self) -> None:
        """Resets some or all connections of a server's clients."""
        front = self._environment.servers[self._server()].front
        front.cut(self._choose, self._choose.choice((0.3, 1.0)))

    async def end_backends(self) -> None:
        """Terminates some of the servers' database sessions during their work."""
        async with connection(self._environment.database.admin_dsn) as sql:
            pids = [row["pid"] for row in await sql.fetch(_found(_BACKENDS + " AND state <> 'idle'"))]
            pids += [row["pid"] for row in await sql.fetch(_found(_BACKENDS))]
            for pid in pids[: self._choose.randint(2, 6)]:
                await sql.fetchval("SELECT pg_terminate_backend($1)", pid)

    async def end_listeners(self) -> None:
        """Terminates the sessions on which servers listen, once there is one."""
        async with connection(self._environment.database.admin_dsn) as sql:

            async def listeners() -> list[int]:
                return [row["pid"] for row in await sql.fetch(_found(_LISTENERS))]

            for pid in await poll_until(listeners, what="a listener"):
                await sql.fetchval("SELECT pg_terminate_backend($1)", pid)

    async def _pass(self) -> None:
        """Waits for a while, in which everything else continues."""
        seconds = _LONG_SECONDS if self._choose.random() < 0.2 else _SHORT_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(runs_out(seconds)):
                await asyncio.Event().wait()


def _found(condition: str) -> str:
    return f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
