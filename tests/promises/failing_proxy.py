"""A proxy to a cluster that can be made to fail in all possible ways.

It requires credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pilothouse_server.runtime.tasks import cancel_and_wait

Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


async def _asks_again(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    """Responds with 407, and repeats all that was sent in head and body."""
    given = re.sub(r"\s+", " ", head)
    body = f"you sent {head}".encode()
    writer.write(
        f"HTTP/1.1 407 No {given[:200]}\r\nProxy-Authenticate: Basic realm=x\r\nX-Sent: {given}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def _resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _head: str) -> None:
    writer.transport.abort()


async def _leads_elsewhere(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    location = "http://127.0.0.1:1/?" + re.sub(r"\W+", "_", head)
    writer.write(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


async def _talks_rubbish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(f"rubbish {head}\r\n\r\n".encode())


async def _is_silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _head: str) -> None:
    await asyncio.Event().wait()


async def _speaks_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await reader.read(1)
    writer.write(f"HTTP/1.1 400 {head[:20]!r}\r\n\r\n".encode())


# Each way in which the proxy fails, and a part of the message that must describe it.
WAYS: dict[str, tuple[Way, str]] = {
    "407": (_asks_again, "responds with 407"),
    "reset": (_resets, "connection"),
    "redirect": (_leads_elsewhere, "responds with 302"),
    "rubbish": (_talks_rubbish, "not HTTP"),
    "silence": (_is_silent, "did not respond in time"),
    "no TLS": (_speaks_no_tls, "the TLS handshake failed"),
}


class FailingProxy:
    """A proxy that fails in the way `way`.

    With '' it passes everything on to `far`, a host and port.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user_info = f"{user}:{password}"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._port = 0
        self.way, self.far = "", ("", 0)

    @property
    def url(self) -> str:
        return f"http://{self._user_info}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Starts to listen, at the same address each time."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and ends the open connections."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends the open connections, so that all clients must connect again."""
        await cancel_and_wait(*self._open)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if self.way:
                    await WAYS[self.way][0](reader, writer, head)
                elif "proxy-authorization: basic" not in head.lower():
                    await _asks_again(reader, writer, head)
                else:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await self._pass_on(reader, writer)
            finally:
                writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.far)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def failing_proxy(user: str, password: str) -> AsyncIterator[FailingProxy]:
    """Yields a proxy that passes everything on until a test sets `way`."""
    made = FailingProxy(user, password)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
