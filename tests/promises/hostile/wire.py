"""HTTP/2 by hand, for callers that misuse it.

They reset, stall, send wrong lengths, or send nothing at all. A client library would refuse to send most of
this. Header fields are sent as literals without Huffman coding. So only the standard library is needed, and an
attacker needs little CPU. The sender may have any local address.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)
INITIAL_WINDOW_SIZE = 4
# A status with details has more bytes; the status of an expired deadline has fewer.
_WITHOUT_DETAILS = 200
_WHOLE_WINDOW = struct.pack(">I", 0x7FFF0000)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns a frame as it is sent."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(pairs: Iterable[tuple[int, int]] = ()) -> bytes:
    """Returns a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def header_block(method: str, token: str = "", extra: Sequence[tuple[str, str]] = ()) -> bytes:
    """Returns the headers of a gRPC call of a full method.

    A full method is, for example, /grpc.health.v1.Health/Check.
    """
    pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *([("authorization", f"Bearer {token}")] if token else []),
        *extra,
    ]
    return b"".join(literal(name) for name in _flat(pairs))


def head(stream: int, block: bytes) -> bytes:
    """Returns headers in as many frames as they need."""
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    return b"".join(
        frame(CONTINUATION if number else HEADERS, END_HEADERS * (number == len(parts) - 1), stream, part)
        for number, part in enumerate(parts)
    )


def _flat(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.encode(), value.encode()) for name, value in pairs)


def literal(pair: tuple[bytes, bytes]) -> bytes:
    """Returns a header field that is never indexed."""
    name, value = pair
    return b"\x10" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    """Returns a string with its length as an HPACK integer with a 7-bit prefix."""
    if len(value) < 127:
        return bytes((len(value),)) + value
    rest, out = len(value) - 127, bytearray((127,))
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    return bytes((*out, rest)) + value


def message(body: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """Returns a gRPC message; `length` replaces the real length in its prefix."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def zeros(size: int) -> bytes:
    """Returns a message that decompresses to `size` zeros, a thousand times its size."""
    packer = zlib.compressobj(level=9, wbits=31)
    piece = bytes(1 << 20)
    packed = b"".join(packer.compress(piece) for _ in range(size >> 20))
    return message(packed + packer.flush(), compressed=True)


@dataclass
class Connection:
    """One connection.

    Received frames are counted by kind, and `refusals` counts those with details. Bodies and heads are stored
    up to `kept_bytes` each. With `reads` False nothing is ever read: the kernel's buffers fill, and then the
    server's.
    """

    address: str
    source: str = ""
    reads: bool = True
    window: int | None = None
    tls: ssl.SSLContext | None = None
    kept_bytes: int = 4096
    seen: Counter[int] = field(default_factory=Counter)
    refusals: int = 0
    body: bytearray = field(default_factory=bytearray)
    heads: bytearray = field(default_factory=bytearray)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _next_stream: int = 1
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _task: asyncio.Task[None] | None = None
    _ended: dict[int, asyncio.Event] = field(default_factory=dict)

    async def connect(self) -> None:
        """Opens the socket and sends nothing. Raises OSError if it is refused."""
        host, _, port = self.address.rpartition(":")
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.setblocking(False)
        # asyncio sets this option only if the socket names its protocol. Without it, a response waits for the
        # other end's ACK.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.reads:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            if self.source:
                opened.bind((self.source, 0))
            await asyncio.get_running_loop().sock_connect(opened, (host, int(port)))
            self._reader, self._writer = await asyncio.open_connection(
                sock=opened, limit=2**16, ssl=self.tls, server_hostname="" if self.tls else None
            )
        except BaseException:
            opened.close()
            raise
        if not self.reads:
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def open(self) -> None:
        """Connects and sends a client's first bytes."""
        await self.connect()
        pairs = [] if self.window is None else [(INITIAL_WINDOW_SIZE, self.window)]
        self.write(PREFACE + settings(pairs))
        if self.reads:
            if self.window is None:
                self.write(frame(WINDOW_UPDATE, 0, 0, _WHOLE_WINDOW))
            self.read()

    def read(self) -> None:
        """Begins to read the server's data, and to acknowledge its settings and pings."""
        self._task = asyncio.create_task(self._read())

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        assert self._writer is not None
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Returns once the kernel has space. Raises OSError if the other end is closed."""
        assert self._writer is not None
        await self._writer.drain()

    def stream(self) -> int:
        """Returns the number of a new stream."""
        number, self._next_stream = self._next_stream, self._next_stream + 2
        return number

    def ended(self, stream: int) -> asyncio.Event:
        """Returns the event that is set when the server has ended the stream."""
        return self._ended.setdefault(stream, asyncio.Event())

    async def call(self, method: str, body: bytes = b"", token: str = "") -> bytes:
        """Returns the body of the response to a unary call, empty if there is none.

        Raises OSError if the connection ends first.
        """
        number = self.stream()
        self.body.clear()
        self.write(
            frame(HEADERS, END_HEADERS, number, header_block(method, token))
            + frame(DATA, END_STREAM, number, message(body))
        )
        await self.all_ended([number])
        return bytes(self.body)

    async def all_ended(self, streams: Sequence[int]) -> None:
        """Returns when the server has ended these streams.

        Raises OSError if the connection ends first.
        """
        closed = asyncio.create_task(self.closed.wait())
        try:
            for stream in streams:
                ended = asyncio.create_task(self.ended(stream).wait())
                await asyncio.wait((ended, closed), return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    ended.cancel()
                    raise ConnectionResetError("the server closed the connection")
        finally:
            closed.cancel()

    def close(self) -> None:
        """Cuts the connection."""
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self.closed.set()

    async def _read(self) -> None:
        assert self._reader is not None
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                length = int.from_bytes(head[:3])
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self._reader.readexactly(length)
                self._take(kind, flags, stream & 0x7FFFFFFF, payload)
        self.closed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self.seen[kind] += 1
        if kind == SETTINGS and not flags & ACK:
            self.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == HEADERS:
            self.refusals += bool(flags & END_STREAM and len(payload) > _WITHOUT_DETAILS)
            if len(self.heads) < self.kept_bytes:
                self.heads += payload
        elif kind == DATA:
            if len(self.body) < self.kept_bytes:
                self.body += payload
            if payload and self.window is None:
                size = struct.pack(">I", len(payload))
                self.write(frame(WINDOW_UPDATE, 0, 0, size) + frame(WINDOW_UPDATE, 0, stream, size))
        if stream and (kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)):
            self.ended(stream).set()


# A simple call without a token, as balancers and kubelets make.
HEALTH = "/grpc.health.v1.Health/Check"
# HealthCheckResponse{status: SERVING} with its length.
SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
