"""The listener of the simulated API server: it can be killed, stopped and started again.

The behaviour is that of a recorded real server. KILL breaks every connection in the middle of its data. TERM closes the
listening socket and idle connections immediately; open watches stay open for a minute without sending anything and then
end normally; followed logs break off. A newly started server does not know the rights from roles for a moment and
returns 403 to their holders, is not ready for another second, and returns 410 for watches from a version before its
start.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from pilothouse_simulator.api.context import ApiContext
from pilothouse_simulator.api.routes import ApiRoutes
from pilothouse_simulator.api.users import Users

_SHUTDOWN_SECONDS = 2.0
_GRACE_SECONDS = 60.0
_ROLES_SECONDS = 0.5
_READY_SECONDS = 1.2
_LAST_WORDS_SECONDS = 0.05


class ApiListener:
    """Serves `routes` on one address, also after restarts. `port` 0 selects a free port at the start."""

    def __init__(
        self,
        context: ApiContext,
        users: Users,
        routes: ApiRoutes,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._context, self._users, self._tls = context, users, tls
        self._host = host
        self.port = port
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", routes.handle)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handler_cancellation=True
        )
        self._site: web.TCPSite | None = None
        self._ending: asyncio.Task[None] | None = None
        self._coming: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens for the first time. Raises OSError if the port is in use."""
        await self._runner.setup()
        await self._listen()

    async def close(self) -> None:
        """Stops everything at the end of the simulator; a simulated server is stopped by `kill` or `terminate`."""
        coming = list(self._coming)
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        await self._runner.cleanup()

    async def kill(self) -> None:
        """Simulates SIGKILL: the server stops responding, and every connection breaks."""
        await self._stop_listening()
        self._context.faults.drop_watches()
        self._abort_connections(all_of_them=True)

    async def terminate(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Simulates SIGTERM: the server accepts no connections; open watches send nothing for `grace_seconds`, and then
        end.
        """
        self._context.closing = True
        await self._stop_listening()
        self._abort_connections(all_of_them=False)
        self._ending = self._later(self._end_streams(grace_seconds))

    async def start_again(
        self, *, roles_seconds: float = _ROLES_SECONDS, ready_seconds: float = _READY_SECONDS
    ) -> None:
        """Starts a new server on the same address.

        Rights from roles apply after `roles_seconds`; the server is ready after `ready_seconds`.
        """
        if self._site is not None:
            return
        if self._ending is not None:
            # The old server runs until its last stream has ended.
            await asyncio.wait((self._ending,))
            self._ending = None
        self._context.closing = False
        self._context.store.history.forget_for_watches(self._context.store.revision)
        self._context.ready = self._users.roles_loaded = False
        self._later(self._become_ready(roles_seconds, ready_seconds))
        await self._listen()

    async def restart(self, *, kill: bool, down_seconds: float) -> None:
        """Stops the server, waits `down_seconds`, and starts it again."""
        await (self.kill() if kill else self.terminate(grace_seconds=down_seconds))
        await self._context.clock.sleep(down_seconds)
        await self.start_again()

    def restart_later(self, kill: bool, down_seconds: float) -> None:
        """Runs `restart` in a task, so that the request for it can end."""
        self._later(self.restart(kill=kill, down_seconds=down_seconds))

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls)
        await self._site.start()
        self.port = self._runner.addresses[-1][1]

    async def _stop_listening(self) -> None:
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    def _abort_connections(self, *, all_of_them: bool) -> None:
        server = self._runner.server
        for connection in server.connections if isinstance(server, web.Server) else []:
            transport = connection.transport
            if transport is not None and (all_of_them or transport not in self._context.busy):
                transport.abort()

    async def _end_streams(self, grace_seconds: float) -> None:
        await self._context.clock.sleep(grace_seconds)
        for stream in tuple(self._context.streams):
            stream.finish()
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        self._abort_connections(all_of_them=True)

    async def _become_ready(self, roles_seconds: float, ready_seconds: float) -> None:
        await self._context.clock.sleep(roles_seconds)
        self._users.roles_loaded = True
        await self._context.clock.sleep(max(0.0, ready_seconds - roles_seconds))
        self._context.ready = True

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        return task
