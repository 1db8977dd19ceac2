"""Connections that a client leaves half open are closed.

Limits reserve connections for other clients.
"""

from __future__ import annotations

import asyncio
import operator
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web

from pilothouse_server.gateway.connections import ConnectionLimits, HttpConnections
from pilothouse_server.settings.model import trusted_peers
from tests.waiting import Stopwatch, patient, poll_until, runs_out, within

QUICK = ConnectionLimits(
    most=4,
    most_of_address=3,
    head_seconds=runs_out(0.2),
    stalled_seconds=runs_out(0.3),
    surplus_seconds=runs_out(0.2),
    look_seconds=runs_out(0.05),
)
SLOW = ConnectionLimits(most=4, most_of_address=3)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="ok")


@asynccontextmanager
async def serving(
    limits: ConnectionLimits, handler: Handler = _answer, trusted: str = ""
) -> AsyncIterator[tuple[HttpConnections, int]]:
    """Runs an aiohttp port behind connections with these limits."""
    connections = HttpConnections(trusted_peers(trusted), limits)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connections.began(request.transport)
        try:
            return await handler(request)
        finally:
            connections.ended(request.transport, request.headers.get("x-browser"))

    server = web.Server(handle, access_log=None)
    listener = await asyncio.get_running_loop().create_server(
        partial(connections.protocol, server), "127.0.0.1", 0
    )
    try:
        yield connections, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown(0.0)
        connections.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Returns once the server has closed the connection; discards responses."""
    async with within(5.0):
        try:
            while await reader.read(65536):
                pass
        except ConnectionResetError:
            return


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-le"])
async def test_an_incomplete_header_closes_its_connection(sent: bytes) -> None:
    async with serving(QUICK) as (_, port):
        began = Stopwatch()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await ended(reader)
        assert began.passed() >= QUICK.head_seconds
        writer.close()


async def test_half_a_header_on_a_reused_connection_closes_it() -> None:
    async with serving(QUICK) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            async with within(5.0):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(2) == b"ok"
        writer.write(b"GET / HT")
        await ended(reader)
        writer.close()


async def test_a_stalled_reader_is_disconnected() -> None:
    begun = asyncio.Event()

    async def much(_request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        return web.Response(body=bytes(32 * 1024 * 1024))

    async with serving(QUICK, much) as (connections, port):
        stalled = socket.create_connection(("127.0.0.1", port))
        with stalled:
            stalled.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

            async def left() -> int:
                return connections.open

            await asyncio.wait_for(begun.wait(), patient(5.0))
            await poll_until(left, lambda count: count == 0, seconds=5.0)


async def test_the_connections_of_one_address_are_limited() -> None:
    async with serving(SLOW) as (connections, port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ended(reader)
        assert connections.open == 3
        held[0][1].close()
        await poll_until(_count(connections), lambda count: count == 2)
        reader, again = await asyncio.open_connection("127.0.0.1", port)
        again.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with within(5.0):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        for other in (writer, again, *(each[1] for each in held)):
            other.close()


async def test_the_longest_idle_connection_is_closed_when_all_are_in_use() -> None:
    async with serving(SLOW, trusted="127.0.0.0/8") as (connections, port):
        held = []
        for count in range(1, 5):
            held.append(await asyncio.open_connection("127.0.0.1", port))
            await poll_until(_count(connections), partial(operator.eq, count))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ended(held[0][0])
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with within(5.0):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert connections.open == 4
        for other in (writer, *(each[1] for each in held)):
            other.close()


async def test_a_browser_keeps_one_idle_connection_and_a_program_all() -> None:
    limits = ConnectionLimits(surplus_seconds=runs_out(0.2), look_seconds=runs_out(0.05))
    async with serving(limits) as (connections, port):
        held = []
        for browser in ("ada", "ada", "eve", "", "", "ada", None, None):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            held.append((reader, writer))
            name = "" if browser is None else f"x-browser: {browser}\r\n"
            writer.write(f"GET / HTTP/1.1\r\nhost: x\r\n{name}\r\n".encode())
            async with within(5.0):
                assert await reader.readuntil(b"ok")
        for reader, _ in (held[0], held[1], held[3], held[4]):
            await ended(reader)
        await poll_until(_count(connections), lambda count: count == 4)
        # The latest connection of each browser still works, and so do all connections of programs.
        for reader, writer in (held[2], held[5], held[6], held[7]):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            async with within(5.0):
                assert await reader.readuntil(b"ok")
        for _, writer in held:
            writer.close()


def _count(connections: HttpConnections) -> Callable[[], Awaitable[int]]:
    async def count() -> int:
        return connections.open

    return count
