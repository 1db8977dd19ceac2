"""Attacks on the HTTP port: clients that begin a request and stop.

See `attacker`. All kinds run together, `count` clients of each, from several addresses. A client that the
server disconnects connects again after a pause, so the attack lasts until it is over.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.hostile.attacker import Order, Report, run
from tests.waiting import runs_out

_PAUSE_SECONDS, _COME_SECONDS = 2.0, 5.0
_LIST = "/pilothouse.container.v1.ContainerService/ListContainers"
_UPGRADE = (
    "GET /ws/pilothouse.container.v1.ContainerService/WatchContainers HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
    "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Order], Awaitable[None]]


async def _pause(order: Order, seconds: float) -> None:
    """Returns after the time, or when the attack is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(runs_out(seconds)):
            await order.over.wait()


async def _until_ended(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _order: Order) -> None:
    await _until_ended(reader)


async def _slow_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _order: Order) -> None:
    """Sends a header line once a second, and never ends the headers."""
    writer.write(f"POST {_LIST} HTTP/1.1\r\nhost: x\r\n".encode())
    ended = asyncio.create_task(_until_ended(reader))
    try:
        while not ended.done():
            writer.write(b"x-more: 1\r\n")
            await asyncio.wait([ended], timeout=runs_out(1.0))
    finally:
        await cancel_and_wait(ended)


async def _half_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: Order) -> None:
    writer.write(
        f"POST {_LIST} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n"
        f'authorization: Bearer {order.token}\r\n\r\n{{"namespace": "'.encode()
    )
    await _until_ended(reader)


async def _unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: Order) -> None:
    """Requests the page's largest file again and again, and reads nothing."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    ask = f"GET {order.options['file']} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    while not writer.is_closing() and not order.over.is_set():
        writer.write(ask)
        await writer.drain()
        await _pause(order, 5.0)


async def _silent_socket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _order: Order) -> None:
    """Upgrades to a WebSocket, and sends no frame."""
    writer.write(_UPGRADE.encode())
    await _until_ended(reader)


KINDS: Mapping[str, _Client] = {
    "silent": _silent,
    "slow headers": _slow_header,
    "half bodies": _half_body,
    "unread answers": _unread,
    "silent sockets": _silent_socket,
}


async def left_open(order: Order) -> Report:
    """Keeps `count` clients of each kind open.

    They have `options["addresses"]` addresses.
    """
    done: Counter[str] = Counter()
    host, _, port = order.address.rpartition(":")

    async def client(kind: str, number: int) -> None:
        source = f"127.0.1.{number % order.options['addresses'] + 1}"
        # The attack consists in the open sockets, so the clients do not all connect in the same moment.
        await _pause(order, _COME_SECONDS * random.random())
        while not order.over.is_set():
            with suppress(OSError):
                own = socket.socket()
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                own.setblocking(False)
                own.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(own, (host, int(port)))
                reader, writer = await asyncio.open_connection(sock=own)
                done[f"{kind} begun"] += 1
                try:
                    await KINDS[kind](reader, writer, order)
                finally:
                    writer.transport.abort()
            done[f"{kind} ended"] += 1
            await _pause(order, _PAUSE_SECONDS * random.uniform(0.5, 1.5))

    order.begins()
    tasks = [
        asyncio.create_task(client(kind, number))
        for index, kind in enumerate(KINDS)
        for number in range(index * order.count, (index + 1) * order.count)
    ]
    await order.over.wait()
    await cancel_and_wait(*tasks)
    return dict(done)


if __name__ == "__main__":
    run({"left_open": left_open})
