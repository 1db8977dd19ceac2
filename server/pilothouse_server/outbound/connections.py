"""Bounds on the bytes that the other side of an outbound connection sends.

`outbound.destinations` uses these connections.

A connection is closed when the other side sends too many bytes that are not part of a response. A response that
arrives in small pieces is parsed with pauses.

aiohttp skips responses 100 and 103 without limit and without a pause, and does not count bytes outside a body, such
as extensions of chunks, or chunks of one byte. Each of these occupied the event loop for as long as it was sent.

aiohttp also parses all bytes of one socket read in one iteration of the event loop. A quarter of a megabyte can be a
hundred thousand empty parts of a message, or forty thousand chunks of two bytes, and takes 50 ms or more. So this
module parses a limited number at a time. The rest of the bytes and the socket wait until it is this connection's turn
among all long work: when each connection paused by itself, ten connections took the whole event loop, and one cluster
has as many. In HTTP it counts lines, because every chunk, header or response has at least one. In a websocket it
counts the frames that do not end a message. (aiohttp itself pauses after a number of complete messages until they are
read.)

A separate module, because it imports aiohttp, which takes long.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, WebSocketError

from pilothouse_server.runtime.event_loop import long_work

# The most interim responses (100, 103) to one request.
_MOST_INTERIM: Final = 16
# The most bytes that a connection may send in response to one request: the first number, plus the second times the
# bytes of its body. (Each line of a log has 30 bytes or more, and six more around it if the other side sends it in a
# chunk of its own.)
_MOST_AROUND_BYTES: Final = 1024 * 1024
_MOST_AROUND_TIMES: Final = 4
# The number of lines, or of parts of messages, that are parsed at a time, in less than a millisecond. (The lines of a
# log count too; this permits some 100,000 of them a second if nothing else runs.)
_LINES_AT_ONCE: Final = 512
_PARTS_AT_ONCE: Final = 256
# The most parts of one message. If the longest accepted message has this many, each has a kilobyte.
_MOST_PARTS: Final = 4096


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector with bounded connections; it takes the same options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(_Bounded, loop=self._loop)
        self._factory = factory


class _Bounded(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = self._received = 0
        # Received bytes that are not parsed yet, and the task that continues with them.
        self._held = b""
        self._going_on: asyncio.Task[None] | None = None
        self._frames: _Frames | None = None

    @property
    def should_close(self) -> bool:
        """Whether the connection cannot serve another request.

        Its unparsed bytes belong to no request.
        """
        return bool(self._held) or super().should_close

    def set_response_params(self, **given: Any) -> None:
        """Resets the counters at the beginning of a request."""
        self._interim = self._received = 0
        super().set_response_params(**given)

    def set_parser(self, parser: Any, payload: Any, data_received_cb: Any = None) -> None:
        """Begins a websocket."""
        self._frames = _Frames()
        # The bytes after the response to the handshake are passed to the parser first, in their order.
        self._tail += self._held
        self._held = b""
        super().set_parser(parser, payload, data_received_cb)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Counts the interim responses when the head of a response arrives."""
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self._interim += 1
        if self._interim <= _MOST_INTERIM:
            super().feed_data(data, size)
        else:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """Handles received bytes.

        An empty value lets aiohttp continue with the bytes in its own buffer.
        """
        if self._held and data:
            self._held += data
        else:
            self._go_through(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Continues with the unparsed bytes when the reader has room again."""
        super().resume_reading(resume_parser)
        if self._held:
            self._go_on_in_turn()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Parses the remaining bytes after the end, unless this side ended the connection."""
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        held, self._held = self._held, b""
        if held and self.transport is not None:
            super().data_received(held)
        super().connection_lost(exc)

    def _resume_reading_for_buffer(self) -> None:
        if not self._held:
            super()._resume_reading_for_buffer()

    def _go_on_in_turn(self) -> None:
        if self._going_on is None:
            self._going_on = self._loop.create_task(self._in_turn(), name="read what comes in small pieces")

    async def _in_turn(self) -> None:
        await long_work(last=True)
        self._going_on = None
        self._go_on()

    def _go_on(self) -> None:
        # If the reader has no room, `resume_reading` continues.
        if self._reading_paused:
            return
        held, self._held = self._held, b""
        if self.transport is None:
            return
        self._go_through(held)
        if not self._waits_for_parser:
            self._resume_reading_for_buffer()

    @property
    def _waits_for_parser(self) -> bool:
        """Whether aiohttp buffers the bytes until a websocket begins.

        It pauses the socket if there are many.
        """
        return self._upgraded and self._frames is None

    def _go_through(self, data: bytes) -> None:
        frames = self._frames
        if frames is not None:
            end = frames.end_of_some(data)
        else:
            end = len(data) if self._waits_for_parser else _end_of_lines(data)
        self._take(data if end == len(data) else data[:end])
        if frames is not None and frames.parts > _MOST_PARTS:
            self._refuse_message()
        elif end < len(data) and self.transport is not None:
            self._held += data[end:]
            self._pause_reading_for_buffer()
            self._go_on_in_turn()

    def _take(self, data: bytes) -> None:
        super().data_received(data)
        if self._upgraded:
            return
        self._received += len(data)
        body: int = getattr(self._payload, "total_bytes", 0)
        if self._received > _MOST_AROUND_BYTES + _MOST_AROUND_TIMES * body:
            self._refuse()

    def _refuse(self) -> None:
        transport, self.transport = self.transport, None
        if transport is None:
            return
        if self._payload is not None:
            self._payload.set_exception(aiohttp.ClientPayloadError())
        self.set_exception(HttpProcessingError())
        transport.abort()

    def _refuse_message(self) -> None:
        """Ends a websocket as aiohttp does if a message is too long.

        Nothing more of it is read.
        """
        queue, self._payload = self._payload, None
        self._payload_parser, self._payload_parser_failed = None, True
        self._pause_reading_for_buffer()
        if queue is not None:
            queue.set_exception(WebSocketError(aiohttp.WSCloseCode.MESSAGE_TOO_BIG, "too many parts"))


def _end_of_lines(data: bytes) -> int:
    """Returns the end of the first `_LINES_AT_ONCE` lines of `data`, or its end."""
    end = 0
    for _ in range(_LINES_AT_ONCE):
        end = data.find(b"\n", end) + 1
        if not end:
            return len(data)
    return end


class _Frames:
    """The received frames of a websocket.

    It counts the parts of the current message that do not end it.
    """

    __slots__ = ("_head", "_rest", "parts")

    def __init__(self) -> None:
        # The head of a frame so far, and how many bytes of a frame's content are still to be received.
        self._head = bytearray()
        self._rest = 0
        self.parts = 0

    def end_of_some(self, data: bytes) -> int:
        """Returns where `_PARTS_AT_ONCE` parts have begun, or one more than allowed.

        A message may have `_MOST_PARTS`. Returns the end of `data` if it has fewer.
        """
        at, some = 0, 0
        while at < len(data):
            if self._rest:
                taken = min(self._rest, len(data) - at)
                self._rest -= taken
                at += taken
                continue
            if some == _PARTS_AT_ONCE or self.parts > _MOST_PARTS:
                return at
            self._head.append(data[at])
            at += 1
            if len(self._head) == _length_of_head(self._head):
                some += self._begin()
        return at

    def _begin(self) -> bool:
        """Begins a frame, by its head; returns whether the frame has no FIN bit."""
        head = self._head
        ends, is_control = bool(head[0] & 0x80), bool(head[0] & 0x08)
        short = head[1] & 0x7F
        length = {126: 2, 127: 8}.get(short, 0)
        self._rest = int.from_bytes(head[2 : 2 + length]) if length else short
        head.clear()
        if not is_control:
            self.parts = 0 if ends else self.parts + 1
        return not ends


def _length_of_head(head: bytearray) -> int:
    """Returns the length of a frame's head, by its first bytes."""
    if len(head) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0) + (4 if head[1] & 0x80 else 0)
