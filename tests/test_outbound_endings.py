"""A response that is not read to its end is cut off, on each event loop and also over TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import AnswerTooLarge
from pilothouse_server.kubernetes.exec import PROTOCOLS, RunningProgram, program
from pilothouse_server.kubernetes.transport import DEFAULT_LIMITS, TransportLimits
from pilothouse_server.launch.embedded.certificate import self_signed
from pilothouse_server.outbound.destinations import ANYWHERE, TooLong, cut, read
from pilothouse_server.settings.model import EVENT_LOOPS
from tests.waiting import patient

End = Callable[[aiohttp.ClientResponse], Awaitable[None]]

# More than the buffers between the two sides can store.
MOST_BYTES = 48 * 1024 * 1024
_PART = b"x" * 65536
# A websocket message of 65535 bytes on the channel of standard output.
_MESSAGE = b"\x82\x7e\xff\xff\x01" + b"x" * 65534
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Endless:
    """A TLS server that answers one request, or a websocket's opening, with endless data.

    It stops after it has sent `MOST_BYTES` more since `ended` was called.
    """

    def __init__(self, folder: Path) -> None:
        pair = self_signed(folder, "127.0.0.1")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self.authority = pair.certificate
        self.trusting = ssl.create_default_context(cafile=pair.certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self.sent = 0
        self._most = math.inf

    def _serve(self) -> None:
        accepted, _ = self._listening.accept()
        try:
            with self._context.wrap_socket(accepted, server_side=True) as connection:
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", connection.recv(65536), re.IGNORECASE)
                connection.sendall(_HEAD if key is None else _opened(key[1].decode()))
                part = _PART if key is None else _MESSAGE
                while self.sent < self._most:
                    connection.sendall(part)
                    self.sent += len(part)
        except OSError:
            return

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._listening.close()

    async def ended(self) -> bool:
        """Waits until the server stops sending, and returns whether the other side's end stopped it."""
        self._most = self.sent + MOST_BYTES
        await asyncio.to_thread(self._thread.join, patient(60.0))
        assert not self._thread.is_alive()
        return self.sent < self._most


def _opened(key: str) -> bytes:
    accepted = base64.b64encode(
        hashlib.sha1((key + _MAGIC).encode(), usedforsecurity=False).digest()
    ).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accepted}\r\nSec-WebSocket-Protocol: {PROTOCOLS[0]}\r\n\r\n"
    ).encode()


Ask = Callable[[Endless], Coroutine[Any, Any, bool]]


async def _too_long(response: aiohttp.ClientResponse) -> None:
    with pytest.raises(TooLong):
        await read(response, 1000)


async def _cut(response: aiohttp.ClientResponse) -> None:
    await response.content.readany()
    cut(response)


async def _closed(response: aiohttp.ClientResponse) -> None:
    await response.content.readany()
    response.close()


def _is_ended(folder: Path, loop: str, ask: Ask) -> bool:
    """Returns whether a server can send nothing more after `ask` has ended."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    endless = Endless(folder)
    with endless.serving(), asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(ask(endless))


def _answered(end: End) -> Ask:
    async def ask(endless: Endless) -> bool:
        connector = ANYWHERE.connector(ssl=endless.trusting)
        async with aiohttp.ClientSession(connector=connector) as session:
            await end(await session.get(endless.url))
            return await endless.ended()

    return ask


@asynccontextmanager
async def _run(endless: Endless, limits: TransportLimits = DEFAULT_LIMITS) -> AsyncIterator[RunningProgram]:
    authority = base64.b64encode(endless.authority.read_bytes()).decode()
    cluster = {"server": endless.url, "certificate-authority-data": authority}
    kubeconfig = {
        "clusters": [{"name": "endless", "cluster": cluster}],
        "contexts": [{"name": "endless", "context": {"cluster": "endless"}}],
        "current-context": "endless",
    }
    client = await ClusterClient.from_kubeconfig(kubeconfig, name="endless", limits=limits)
    try:
        async with program(
            client, "demo", "web-0", container="main", command=["yes"], stdin=False, tty=False
        ) as running:
            yield running
    finally:
        await client.close()


async def _program(endless: Endless) -> bool:
    async with _run(endless):
        pass
    return await endless.ended()


async def _program_too_long(endless: Endless) -> bool:
    async with _run(endless, TransportLimits(message_bytes=1000)) as running:
        with pytest.raises(AnswerTooLarge):
            await anext(running.output())
    return await endless.ended()


@pytest.mark.parametrize("ask", [_answered(_too_long), _answered(_cut), _program, _program_too_long])
@pytest.mark.parametrize("loop", EVENT_LOOPS)
def test_a_server_cannot_send_the_rest_of_an_unread_response(tmp_path: Path, loop: str, ask: Ask) -> None:
    assert _is_ended(tmp_path, loop, ask)


def test_the_check_detects_a_response_that_is_only_closed(tmp_path: Path) -> None:
    assert not _is_ended(tmp_path, "uvloop", _answered(_closed))
