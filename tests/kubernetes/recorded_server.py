"""A server that repeats the responses of a real API server on a socket.

An exchange is chosen by method, path and the query parameters that change the meaning of the request. Equal
requests get the responses in their recorded order, and after that the last one forever. A recorded stream is
sent line by line and ends as it was recorded to end: cleanly, in the middle, or not at all. `cut_lines` sends
the beginning of one more line before a broken end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.transport import TransportLimits
from tests.kubernetes import recorded
from tests.waiting import patient

JsonObject = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LIMITS = TransportLimits(request_seconds=patient(5.0), watch_idle_seconds=patient(5.0))
# The parameters that distinguish requests; the others (field manager, timeouts, page sizes) are the client's
# choice.
_TELLING = ("watch", "resourceVersion", "continue", "force", "dryRun", "command")
_HANDSHAKE = ("sec-websocket-protocol", "connection", "upgrade")


class RecordedServer:
    """Repeats recordings.

    `requests` are the received requests: method, path, query, body.
    """

    def __init__(self, *names: str, cut_lines: bool = False, skip: frozenset[int] = frozenset()) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.sent_frames: list[bytes] = []
        self._exchanges = [
            exchange
            for name in names
            for number, exchange in enumerate(recorded.exchanges(name))
            if exchange["request"]["method"] != "-" and "response" in exchange and number not in skip
        ]
        self._cut_lines = cut_lines
        self._used: dict[str, int] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Responds to any request, with 404 if the request was never recorded."""
        body = await request.read()
        self.requests.append((request.method, request.path, dict(request.query), body))
        exchange = self._choose(request)
        if exchange is None:
            return web.Response(status=404, text=f"not recorded: {request.method} {request.path_qs}")
        response = exchange["response"]
        if "error" in response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        if "frames" in response:
            return await self._converse(request, response)
        headers = {
            name: value for name, value in response["headers"].items() if name.lower() not in _HANDSHAKE
        }
        if "lines" in response:
            return await self._stream(request, response, headers)
        content = json.dumps(response["body"]) if "body" in response else response.get("text", "")
        return web.Response(status=response["status"], body=content.encode(), headers=headers)

    def _choose(self, request: web.Request) -> JsonObject | None:
        wanted = _telling({name: request.query.getall(name) for name in request.query})
        key = f"{request.method} {request.path} {wanted}"
        alike = [
            exchange
            for exchange in self._exchanges
            if exchange["request"]["method"] == request.method
            and exchange["request"]["path"] == request.path
            and _telling(exchange["request"]["query"]) == wanted
        ]
        if not alike:
            return None
        number = self._used.get(key, 0)
        self._used[key] = number + 1
        return alike[min(number, len(alike) - 1)]

    async def _stream(
        self, request: web.Request, response: JsonObject, headers: dict[str, str]
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers=headers)
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for line in response["lines"]:
            await answer.write(
                json.dumps(line["json"]).encode() + b"\n" if "json" in line else line["text"].encode()
            )
        if response["ended"] == "server closed":
            await answer.write_eof()
        elif response["ended"].startswith("ClientPayloadError"):
            if self._cut_lines:
                await answer.write(b'{"type": "MODIFIED", "object": {"kind": "ConfigM')
            assert request.transport is not None
            request.transport.close()
        else:
            # The stream was open until the client disconnected.
            await asyncio.Event().wait()
        return answer

    async def _converse(self, request: web.Request, response: JsonObject) -> web.StreamResponse:
        offered = response["headers"].get("sec-websocket-protocol", "")
        socket = web.WebSocketResponse(protocols=[offered] if offered else ())
        await socket.prepare(request)
        for frame in response["frames"]:
            if frame["dir"] == "sent":
                message = await socket.receive()
                if message.type is not WSMsgType.BINARY:
                    break
                self.sent_frames.append(message.data)
            elif "channel" in frame:
                await socket.send_bytes(bytes([frame["channel"]]) + frame["data"].encode())
            elif frame.get("what") == "websocket close":
                await socket.close(code=frame["code"])
        return socket


def _telling(query: JsonObject) -> dict[str, list[str]]:
    """Returns the distinguishing part of a query, each value as a list.

    The default of `force` is left out.
    """
    found = {
        name: [str(part) for part in (value if isinstance(value, list) else [value])]
        for name, value in query.items()
        if name in _TELLING
    }
    if found.get("force") == ["false"]:
        del found["force"]
    return found


@asynccontextmanager
async def serving(server: RecordedServer, limits: TransportLimits = LIMITS) -> AsyncIterator[ClusterClient]:
    """Yields a client of the server, which listens on a free port."""
    async with served(server.handle, limits, name="recorded", cancelled=True) as client:
        yield client


@asynccontextmanager
async def served(
    handler: Handler, limits: TransportLimits, *, name: str = "far", cancelled: bool = False
) -> AsyncIterator[ClusterClient]:
    """Yields a client of a server that handles all requests with `handler`.

    The server has a free port, and the client the token `t0ken`. With `cancelled`, the handler is cancelled
    when the client disconnects.
    """
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=cancelled)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    client = await ClusterClient.from_kubeconfig(
        {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": f"http://{host}:{port}"}}],
            "users": [{"name": "x", "user": {"token": "t0ken"}}],
        },
        name=name,
        limits=limits,
    )
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()
