"""An answer that is not read to its end is cut off, also by TLS, on each event loop, however much its sender sends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import uvloop

from pilothouse_server.embedded.certificate import self_signed
from pilothouse_server.outbound import ANYWHERE, TooLong, cut, read
from pilothouse_server.settings import EVENT_LOOPS
from tests.waiting import patient

# More than the buffers on the way between both hold.
MOST_BYTES = 48 * 1024 * 1024
_PART = b"x" * 65536


class Endless:
    """A server by TLS that answers one request with as much as is taken; it gives up at `MOST_BYTES`."""

    def __init__(self, folder: Path) -> None:
        pair = self_signed(folder, "127.0.0.1")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self.trusting = ssl.create_default_context(cafile=pair.certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}/"
        self.sent = 0

    def _serve(self) -> None:
        accepted, _ = self._listening.accept()
        try:
            with self._context.wrap_socket(accepted, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                while self.sent < MOST_BYTES:
                    connection.sendall(_PART)
                    self.sent += len(_PART)
        except OSError:
            return

    @contextmanager
    def serving(self) -> Iterator[None]:
        """For the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._listening.close()

    async def ended(self) -> None:
        """Returns once it sends nothing more."""
        await asyncio.to_thread(self._thread.join, patient(60.0))
        assert not self._thread.is_alive()


async def _too_long(response: aiohttp.ClientResponse) -> None:
    with pytest.raises(TooLong):
        await read(response, 1000)


async def _cut(response: aiohttp.ClientResponse) -> None:
    await response.content.readany()
    cut(response)


async def _closed(response: aiohttp.ClientResponse) -> None:
    await response.content.readany()
    response.close()


def _sent(folder: Path, loop: str, end: Callable[[aiohttp.ClientResponse], object]) -> int:
    """How much a server could send to an answer that ended so."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    endless = Endless(folder)

    async def asked() -> None:
        connector = ANYWHERE.connector(ssl=endless.trusting)
        async with aiohttp.ClientSession(connector=connector) as session:
            response = await session.get(endless.url)
            await end(response)  # type: ignore[misc]
            await endless.ended()

    with endless.serving(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asked())
    return endless.sent


@pytest.mark.parametrize("end", [_too_long, _cut])
@pytest.mark.parametrize("loop", EVENT_LOOPS)
def test_what_is_not_read_is_not_sent(
    tmp_path: Path, loop: str, end: Callable[[aiohttp.ClientResponse], object]
) -> None:
    assert _sent(tmp_path, loop, end) < MOST_BYTES


def test_to_close_alone_is_found(tmp_path: Path) -> None:
    assert _sent(tmp_path, "uvloop", _closed) >= MOST_BYTES
