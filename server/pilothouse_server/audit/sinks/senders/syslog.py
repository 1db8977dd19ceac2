"""Syslog over TCP (RFC 6587) and TLS (RFC 5425), with octets counted.

Syslog acknowledges nothing by itself, so each batch has a connection of its own that is closed in order: we end our
side after the last line, and the receiver, having read to that end, ends its own. If a receiver dies before it has read
everything, its kernel discards unread data and resets the connection, and the batch is sent again. If a receiver ends
its side early, we wait until its kernel has acknowledged the rest, or resets the connection.

Over TLS our end is the alert `close_notify`. Not every receiver responds with its own (rsyslog with GnuTLS just closes
the connection), so the end of the connection is accepted instead. It is accepted only after our alert was sent.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pilothouse_server.audit.sinks.senders import SEND_SECONDS, SinkFailed
from pilothouse_server.outbound.destinations import Reach, failure

_CONNECT_SECONDS = 10.0
_READ_BYTES = 4096
_WRITE_BYTES = 64 * 1024
_LOOK_SECONDS = 0.02


class SyslogSender:
    """Sends lines to one receiver."""

    def __init__(self, host: str, port: int, reach: Reach, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._reach = reach
        self._tls = tls

    async def send(self, items: Sequence[bytes]) -> None:
        """Returns once the receiver has read all and ended the connection. Raises SinkFailed."""
        frames = b"".join(b"%d %b" % (len(item), item) for item in items)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                connection = await self._connected()
                try:
                    if self._tls is None:
                        await _send_plainly(connection, frames)
                    else:
                        await _TlsConnection(connection, self._tls, self._host).send(frames)
                finally:
                    connection.close()
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise SinkFailed(
                "UNREACHABLE", f"the lines cannot be sent to the sink: {failure(error)}"
            ) from None

    async def close(self) -> None:
        """Does nothing: no connection is open."""

    async def _connected(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        last: OSError = OSError("no address")
        for address in found:
            opened: socket.socket | None = None
            try:
                opened = self._reach.socket(address)
                opened.setblocking(False)
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await loop.sock_connect(opened, address[4])
            except (OSError, TimeoutError) as error:
                last = error
                if opened is not None:
                    opened.close()
            else:
                return opened
        raise last


async def _send_plainly(connection: socket.socket, frames: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, frames)
    await _end(connection)


async def _end(connection: socket.socket) -> None:
    """Ends our side; returns once the other side has ended its own and has all data. Raises OSError on a reset."""
    loop = asyncio.get_running_loop()
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, _READ_BYTES):
        # The syslog protocol defines no response, so the receiver's bytes are ignored.
        pass
    while True:
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        if _unacknowledged(connection) == 0:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _unacknowledged(connection: socket.socket) -> int:
    """Returns the number of octets that the other side's kernel has not acknowledged yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(count)


class _EndedError(ConnectionResetError):
    """The connection has ended without an alert."""


class _TlsConnection:
    """TLS over a socket of the event loop.

    asyncio's streams close the connection without checking which bytes were received.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def send(self, frames: bytes) -> None:
        await self._step(self._tls.do_handshake)
        left = memoryview(frames)
        while left:
            left = left[await self._step(partial(self._tls.write, left[:_WRITE_BYTES])) :]
        # Sends our close_notify; ends when the other side's has arrived, or the connection has ended.
        with suppress(_EndedError):
            await self._step(self._tls.unwrap)
        await _end(self._connection)

    async def _step(self, act: Callable[[], Any]) -> Any:
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                await self._flush()
                received = await self._loop.sock_recv(self._connection, _READ_BYTES)
                if not received:
                    raise _EndedError from None
                self._incoming.write(received)
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._connection, self._outgoing.read())
