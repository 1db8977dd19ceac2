"""Streams over WebSockets: frames of gRPC-Web, first with metadata and last with trailers.

A browser has six connections to an origin by HTTP/1.1, but hundreds of WebSockets, and only WebSockets are
bidirectional. A frame has at most 64 KiB. A longer response is sent in several frames: the prefix in the first has its
length.

One task receives all the time, because aiohttp responds to pings only while a frame is awaited. So the call of a client
that disconnects ends immediately.
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
# The number of requests that have arrived and are not read yet.
_MOST_UNREAD: Final = 4

# Serves a call by a context and the metadata of its first frame; returns the response of a unary call.
Serve = Callable[[CallContext, Metadata], Awaitable[bytes | None]]


async def converse(request: web.BaseRequest, peer: str, serve: Serve) -> web.WebSocketResponse:
    """Serves one call over a WebSocket. The caller has checked its origin."""
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
        # The requests that have arrived; None marks their end.
        self._arrived: asyncio.Queue[bytes | InvalidArgument | None] = asyncio.Queue(_MOST_UNREAD)
        self._metadata: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()

    async def receive(self) -> None:
        """Reads frames until the client disconnects."""
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
        # Receives until the call has ended, so that pings get responses.
        async for _ in self._socket:
            pass

    async def call(self, peer: str, serve: Serve) -> None:
        """Runs the call, and sends its status."""
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
    """Awaits the last frames to a client for a bounded time, because the client may have stopped reading."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await work
    except TimeoutError:
        return
