"""The faults of a campaign's servers, one after the other, spread over its mutations."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.conftest import connection
from tests.promises.watches.ground import Ground
from tests.waiting import poll_until, runs_out

# A server is frozen, or its connections are held, for so long: longer than a stream may be silent, now and then.
_SHORT_SECONDS, _LONG_SECONDS = 0.7, 5.0
_LISTENERS = "application_name = 'pilothouse-listener'"
_BACKENDS = "usename IN ('pilothouse_app', 'pilothouse_system') AND NOT (" + _LISTENERS + ")"


class Faults:
    """Breaks something after so many mutations each time, in an order that the seed decides."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._choose = random.Random(f"faults {ground.size.seed}")
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
        """Goes through all kinds in turn, until there were as many as the size says."""
        size, progress = self._ground.size, self._ground.progress
        for number in range(size.faults):
            await progress.reached(size.mutations * (number + 1) // (size.faults + 1))
            kind = self._kinds[number % len(self._kinds)]
            await kind()
            self._ground.recording.counts[f"fault: {kind.__name__}"] += 1

    def _server(self) -> int:
        return self._choose.randrange(len(self._ground.servers))

    async def kill_a_server(self) -> None:
        """A server is gone as by a power cut, and comes back on another port."""
        server = self._ground.servers[self._server()]
        await server.kill()
        await server.start()

    async def freeze_a_server(self) -> None:
        """A server stands still with all that it holds, and goes on as if nothing had been."""
        server = self._ground.servers[self._server()]
        server.freeze()
        try:
            await self._pass()
        finally:
            server.thaw()

    async def hold_connections(self) -> None:
        """A server's clients receive nothing and are not cut; then all comes together, or is lost."""
        front = self._ground.servers[self._server()].front
        front.hold()
        await self._pass()
        if self._choose.random() < 0.5:
            front.cut(self._choose)
        front.let_go()

    async def cut_connections(self) -> None:
        """Some or all connections of a server's clients are reset."""
        front = self._ground.servers[self._server()].front
        front.cut(self._choose, self._choose.choice((0.3, 1.0)))

    async def end_backends(self) -> None:
        """Some of the database's sessions of the servers end, in the middle of their work."""
        async with connection(self._ground.database.admin_dsn) as sql:
            pids = [row["pid"] for row in await sql.fetch(_found(_BACKENDS + " AND state <> 'idle'"))]
            pids += [row["pid"] for row in await sql.fetch(_found(_BACKENDS))]
            for pid in pids[: self._choose.randint(2, 6)]:
                await sql.fetchval("SELECT pg_terminate_backend($1)", pid)

    async def end_listeners(self) -> None:
        """The sessions end on which servers listen, once there is one."""
        async with connection(self._ground.database.admin_dsn) as sql:

            async def listeners() -> list[int]:
                return [row["pid"] for row in await sql.fetch(_found(_LISTENERS))]

            for pid in await poll_until(listeners, what="a listener"):
                await sql.fetchval("SELECT pg_terminate_backend($1)", pid)

    async def _pass(self) -> None:
        """Lets a while go by; the others continue."""
        seconds = _LONG_SECONDS if self._choose.random() < 0.2 else _SHORT_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(runs_out(seconds)):
                await asyncio.Event().wait()


def _found(condition: str) -> str:
    return f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
