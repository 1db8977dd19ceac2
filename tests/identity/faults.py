"""Faulty responses of an HTTP server, each a real response on a real socket."""

from __future__ import annotations

import asyncio
import enum
import zlib

from aiohttp import web

# The target of redirects: a client that follows a redirect requests this path.
TRAP = "/trap"
_MEBIBYTE = bytes(1024 * 1024)


class Fault(enum.Enum):
    """The fault that replaces the response."""

    # The connection is closed without a response.
    CUT = "cut"
    # No response until `released`; then the correct one.
    SLOW = "slow"
    # The body begins, and stops until `released`.
    STALLED = "stalled"
    # The body never ends.
    ENDLESS = "endless"
    # Some KB that decompress to 64 MiB.
    BOMB = "bomb"
    # The body ends before its announced length.
    TORN = "torn"
    HTML = "html"
    NOT_JSON = "not JSON"
    NOT_UTF8 = "not UTF-8"
    # JSON of another form than requested.
    LIST = "list"
    # An object of the requested form whose entries have other types.
    WRONG_TYPES = "wrong types"
    # JSON that is nested ten thousand levels deep.
    DEEP = "deep"
    EMPTY = "empty"
    REDIRECT = "redirect"
    FAILED = "failed"
    THROTTLED = "throttled"

    async def answer(self, request: web.Request, released: asyncio.Event) -> web.StreamResponse | None:
        """Returns the faulty response, or None if the correct one follows."""
        if self is Fault.CUT:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if self is Fault.SLOW:
            await released.wait()
            return None
        if self in (Fault.STALLED, Fault.ENDLESS, Fault.TORN):
            return await self._streamed(request, released)
        return self._at_once()

    def _at_once(self) -> web.Response:
        if self is Fault.REDIRECT:
            return web.Response(status=302, headers={"location": TRAP})
        if self in (Fault.FAILED, Fault.THROTTLED):
            return web.Response(
                status=500 if self is Fault.FAILED else 429, text="secret words of the issuer"
            )
        if self is Fault.HTML:
            return web.Response(text="<html>log in to the network first</html>", content_type="text/html")
        if self is Fault.BOMB:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
            body = b"".join(squeeze.compress(_MEBIBYTE) for _ in range(64)) + squeeze.flush()
            headers = {"content-encoding": "gzip", "content-type": "application/json"}
            return web.Response(body=body, headers=headers)
        bodies = {
            Fault.NOT_JSON: b'{"issuer": ',
            Fault.NOT_UTF8: b'{"issuer": "\xff\xfe"}',
            Fault.LIST: b"[1, 2, 3]",
            Fault.WRONG_TYPES: b'{"issuer": 7, "keys": {"kty": []}, "jwks_uri": null, "id_token": 1, "error": {}}',
            Fault.DEEP: b'{"keys":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            Fault.EMPTY: b"",
        }
        return web.Response(body=bodies[self], content_type="application/json")

    async def _streamed(self, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        if self is Fault.TORN:
            response.content_length = 1000
        await response.prepare(request)
        try:
            await response.write(b'{"issuer": "')
            if self is Fault.STALLED:
                await released.wait()
            while self is Fault.ENDLESS and not released.is_set():
                await response.write(b"x" * 65536)
        except ConnectionError:
            # The caller has closed the connection.
            return response
        if request.transport is not None:
            request.transport.abort()
        return response
