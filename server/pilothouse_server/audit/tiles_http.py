"""Serves the tree over the audit log to everybody by HTTP, as C2SP tlog-tiles, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilothouse_server.audit import tiles
from pilothouse_server.audit.policy import Policy
from pilothouse_server.audit.tiles import TilePath
from pilothouse_server.audit.witnesses import published
from pilothouse_server.errors import InvalidArgument, NotFound, PilothouseError
from pilothouse_server.settings.model import address_refused
from pilothouse_server.store.unit_of_work import Store

if TYPE_CHECKING:
    from aiohttp import web

_SHUTDOWN_SECONDS = 2.0
_LONG = "public, max-age=31536000, immutable"
_SHORT = "no-cache"


class TilesServer:
    """The HTTP listener. `shared`: other processes of this server listen on the same address."""

    def __init__(self, store: Store, policy: Policy, address: str, *, shared: bool) -> None:
        self._store = store
        self._policy = policy
        self._address = address
        self._shared = shared
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Starts to listen. Raises SettingsError if the address cannot be used."""
        from aiohttp import web

        application = web.Application(client_max_size=1024)
        application.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        host, _, port = self._address.rpartition(":")
        try:
            site = web.TCPSite(self._runner, host or "127.0.0.1", int(port), reuse_port=self._shared or None)
            await site.start()
        except (OSError, ValueError, OverflowError):
            raise address_refused(self._address, "AUDIT_TILES_LISTEN") from None
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Ends the listener, and allows a moment for requests in progress."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        path = request.match_info["path"]
        try:
            if path == tiles.CHECKPOINT:
                return web.Response(
                    body=(await self._checkpoint()).encode(),
                    content_type="text/plain",
                    charset="utf-8",
                    headers={"Cache-Control": _SHORT},
                )
            async with self._store.system_look() as transaction:
                found = await tiles.read(transaction, TilePath.parse(path))
        except (NotFound, InvalidArgument):
            return web.Response(status=404, text="not found\n")
        except PilothouseError as error:
            return web.Response(status=503, text=f"{error.message}\n")
        return web.Response(
            body=found, content_type="application/octet-stream", headers={"Cache-Control": _LONG}
        )

    async def _checkpoint(self) -> str:
        seal = await published(self._store, self._policy)
        if seal is None:
            raise NotFound("no head is published yet", reason="AUDIT_HEAD_NOT_FOUND")
        return seal.note
