"""Streams over WebSockets: one frame of gRPC-Web in each, of metadata first and of trailers last.

A browser has six connections to an origin by HTTP/1.1, and hundreds of WebSockets; and only these run both ways. A
frame has at most 64 KiB. An answer that is longer follows in several: the prefix of the first says how long it is.

One task receives all the time, because aiohttp answers pings only while a frame is awaited. So a client that goes away
ends its call immediately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSMsgType, web

from pilothouse_server.errors import InvalidArgument, PilothouseError
from pilothouse_server.gateway import frames
from pilothouse_server.gateway.context import CallContext, Metadata
from pilothouse_server.rpc.status import CODES, STATUS_KEY, rich_status
from pilothouse_server.runtime.tasks import cancel_and_wait

FRAME_BYTES: Final = 64 * 1024
_PING_SECONDS: Final = 20.0
_FIRST_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
# Requests that have arrived and are not read yet.
_MOST_UNREAD: Final = 4

# Serves a call by the metadata of its first frame and a context; returns the answer of a unary one.
Serve = Callable[[CallContext, Metadata], Awaitable[bytes | None]]


async def converse(request: web.BaseRequest, peer: str, serve: Serve) -> web.WebSocketResponse:
    """Serves one call over a WebSocket, whose origin is checked."""
    socket = web.WebSocketResponse(
        heartbeat=_PING_SECONDS, compress=False, max_msg_size=FRAME_BYTES, timeout=_END_SECONDS
    )
    await socket.prepare(request)
    talk = _Talk(socket)
    receiving = asyncio.create_task(talk.receive(), name="receive frames")
    calling = asyncio.create_task(talk.call(peer, serve), name="call over a WebSocket")
    try:
        await asyncio.wait([receiving, calling], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(calling, receiving)
    await _ended_in_time(socket.close())
    if calling.done() and not calling.cancelled():
        calling.result()
    return socket


class _Talk:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        # The requests that have arrived; None is their end.
        self._arrived: asyncio.Queue[bytes | InvalidArgument | None] = asyncio.Queue(_MOST_UNREAD)
        self._metadata: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()

    async def receive(self) -> None:
        """Reads frames until the client is gone."""
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                return
            try:
                of_metadata, contents = frames.read_frame(message.data)
                if not self._metadata.done():
                    self._metadata.set_result(frames.read_metadata(contents) if of_metadata else [])
                    if of_metadata:
                        continue
            except InvalidArgument as error:
                await self._arrived.put(error)
                if not self._metadata.done():
                    self._metadata.set_result([])
                break
            await self._arrived.put(None if of_metadata else contents)
        # Pings are answered until the call has ended.
        async for _ in self._socket:
            pass

    async def call(self, peer: str, serve: Serve) -> None:
        """Runs the call, and sends how it ended."""
        try:
            async with asyncio.timeout(_FIRST_SECONDS):
                metadata = tuple(await self._metadata)
        except TimeoutError:
            return
        seconds = frames.timeout_seconds(dict(metadata).get("grpc-timeout", ""))
        context = CallContext(peer, seconds, self._next, self._send)
        try:
            answer = await serve(context, metadata)
        except PilothouseError as error:
            context.code, context.message = CODES[error.code], error.message
            context.set_trailing_metadata(((STATUS_KEY, rich_status(error).SerializeToString()),))
            answer = None
        await _ended_in_time(self._end(context, answer))

    async def _end(self, context: CallContext, answer: bytes | None) -> None:
        if answer is not None:
            await self._send(answer)
        end = frames.trailers_frame(context.code, context.message, context.trailing)
        await self._in_frames(end)

    async def _next(self) -> bytes | None:
        found = await self._arrived.get()
        if isinstance(found, InvalidArgument):
            raise found
        return found

    async def _send(self, answer: bytes) -> None:
        await self._in_frames(frames.message_frame(answer))

    async def _in_frames(self, framed: bytes) -> None:
        for at in range(0, len(framed), FRAME_BYTES):
            try:
                await self._socket.send_bytes(framed[at : at + FRAME_BYTES])
            except ConnectionError:
                raise asyncio.CancelledError from None


async def _ended_in_time(work: Awaitable[object]) -> None:
    """Awaits the last words to a client, which may take nothing any more."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await work
    except TimeoutError:
        return
