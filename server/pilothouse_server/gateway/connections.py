"""The connections of the HTTP port: how many there may be, and which of them are closed.

aiohttp has no time limit for a client that sends nothing, or half of a header, nor for one that reads no response: a
socket whose peer is gone stays open, because closing it waits until everything is sent. So each connection passes
through a `Guard` here, and one timer for all connections closes those that are late (`transport.abort`, which does not
wait). While a handler has the request, the pipeline's own bounds apply to its body.

If the number of connections is at its limit, the connection that has been idle for longest is closed. Connections of
one address are bounded, too; those of a trusted proxy are not, because it has the callers of many addresses.

A browser opens six connections to load a page, and keeps them. Once they are idle, all but the latest are closed: tabs
that only watch have one connection for their watch and one for calls. Programs and proxies keep theirs, because they do
not repeat a call whose connection is closed at that moment, as browsers do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.settings.model import TrustedPeer

# The number of bytes that the kernel buffers for a reader that takes nothing, in addition to asyncio's buffer.
_SEND_BUFFER_BYTES = 128 * 1024


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of the connections of a process.

    `head_seconds`: from the first byte of a request, or from the start of the connection, to the end of the header.
    `stalled_seconds`: how long a client may take none of the bytes that are sent.
    `surplus_seconds`: how long a browser's surplus idle connections stay open.
    """

    most: int = 4096
    most_of_address: int = 512
    head_seconds: float = 10.0
    stalled_seconds: float = 30.0
    surplus_seconds: float = 5.0
    look_seconds: float = 1.0


class HttpConnections:
    """All connections of the port.

    `protocol` makes one; `began` and `ended` enclose the handling of a request.
    """

    def __init__(
        self, trusted_proxies: Sequence[TrustedPeer] = (), limits: ConnectionLimits = ConnectionLimits()
    ) -> None:
        self.limits = limits
        self._trusted = [each for each in trusted_proxies if not isinstance(each, str)]
        self._guards: dict[asyncio.BaseTransport, Guard] = {}
        # Connections without a request in progress, the longest idle first.
        self._idle: dict[Guard, None] = {}
        self._of: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """The number of connections."""
        return len(self._guards)

    def protocol(self, make: Callable[[], asyncio.Protocol]) -> Guard:
        """Returns the protocol of a new connection, which wraps one that `make` returns."""
        return Guard(self, make())

    def began(self, transport: asyncio.BaseTransport | None) -> None:
        """Notes that a handler has a request of this connection."""
        if transport is not None and (guard := self._guards.get(transport)) is not None:
            guard.late_at = None
            self._idle.pop(guard, None)

    def ended(self, transport: asyncio.BaseTransport | None, browser: str | None = None) -> None:
        """Notes the end of the request; `browser` identifies the browser that sent it, '' if it has no session."""
        if transport is not None and (guard := self._guards.get(transport)) is not None:
            guard.browser, guard.idle_since = browser, asyncio.get_running_loop().time()
            self._idle[guard] = None

    def close(self) -> None:
        """Cancels the timer; called once no connection is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def admit(self, guard: Guard, transport: asyncio.Transport) -> bool:
        """Adds a new connection; returns False if there is no place for it."""
        address = guard.address
        if self._of[address] >= self.limits.most_of_address and not self._is_trusted(address):
            return False
        if len(self._guards) >= self.limits.most:
            if not self._idle:
                return False
            next(iter(self._idle)).abort()
        self._guards[transport] = guard
        self._idle[guard] = None
        self._of[address] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limits.look_seconds, self._look)
        return True

    def forget(self, guard: Guard, transport: asyncio.BaseTransport) -> None:
        """Removes an admitted connection that is closed, or is about to be."""
        if self._guards.pop(transport, None) is None:
            return
        self._idle.pop(guard, None)
        self._of[guard.address] -= 1
        if not self._of[guard.address]:
            del self._of[guard.address]

    def is_idle(self, guard: Guard) -> bool:
        """Returns whether no handler has a request of the connection."""
        return guard in self._idle

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for guard in list(self._guards.values()):
            if guard.is_late(loop.time(), self.limits.stalled_seconds):
                guard.abort()
        self._end_surplus(loop.time() - self.limits.surplus_seconds)
        self._timer = loop.call_later(self.limits.look_seconds, self._look) if self._guards else None

    def _end_surplus(self, idle_since: float) -> None:
        # A browser without a session has no watch, so it keeps no idle connection.
        kept = {""}
        for guard in reversed(list(self._idle)):
            if guard.browser is None:
                continue
            if guard.browser in kept and guard.idle_since <= idle_since:
                guard.abort()
            kept.add(guard.browser)

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_network(address)
        except ValueError:
            return False
        return any(parsed.version == each.version and parsed.subnet_of(each) for each in self._trusted)  # type: ignore[arg-type]


class Guard(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's protocol, and records when it is late."""

    def __init__(self, connections: HttpConnections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self.address = ""
        # The time after which the awaited header is late; None if no header is awaited.
        self.late_at: float | None = None
        # The browser that sent the last request, and since when the connection is idle.
        self.browser: str | None = None
        self.idle_since = 0.0
        self._pending, self._pending_since = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        self.address = address_group(peer[0]) if peer else "unix"
        if not self._connections.admit(self, transport):
            transport.abort()
            return
        own: socket.socket | None = transport.get_extra_info("socket")
        if own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._transport = transport
        self._expect_header()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self.late_at is None and self._connections.is_idle(self):
            self._expect_header()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._connections.forget(self, self._transport)
            self._inner.connection_lost(error)

    def is_late(self, now: float, stalled_seconds: float) -> bool:
        """Returns whether its header is late, or its client has taken no byte for `stalled_seconds`."""
        assert self._transport is not None
        pending = self._transport.get_write_buffer_size()
        if pending != self._pending or not pending:
            self._pending, self._pending_since = pending, now
        return (
            self.late_at is not None and now >= self.late_at
        ) or now - self._pending_since >= stalled_seconds

    def abort(self) -> None:
        """Closes the connection without waiting until everything is sent."""
        assert self._transport is not None
        self._connections.forget(self, self._transport)
        self._transport.abort()

    def _expect_header(self) -> None:
        self.late_at = asyncio.get_running_loop().time() + self._connections.limits.head_seconds
