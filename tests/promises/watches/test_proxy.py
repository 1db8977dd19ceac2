"""The proxy forwards data in order, holds it, and resets connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.promises.watches.proxy import Proxy, proxy
from tests.waiting import poll_until, runs_out, within

pytestmark = pytest.mark.full

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echoing(delay_seconds: float = 0.0) -> AsyncIterator[tuple[Proxy, Ends]]:
    """Yields a proxy to a server that echoes, and a connection through the proxy."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy(delay_seconds) as front:
        front.target = server.sockets[0].getsockname()[1]
        host, _, port = front.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield front, (reader, writer)
        finally:
            writer.close()


@pytest.mark.parametrize("delay_seconds", [0.0, 0.002])
async def test_data_is_forwarded_in_order(delay_seconds: float) -> None:
    sent = random.Random(1).randbytes(2_000_000)
    async with echoing(delay_seconds) as (_, (reader, writer)), within(20):
        for place in range(0, len(sent), 10_000):
            writer.write(sent[place : place + 10_000])
        assert await reader.readexactly(len(sent)) == sent


async def test_held_data_is_forwarded_after_the_release() -> None:
    async with echoing() as (front, (reader, writer)), within(20):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        front.hold()
        writer.write(b"held")
        coming = asyncio.ensure_future(reader.readexactly(4))
        done, _ = await asyncio.wait([coming], timeout=runs_out(0.2))
        assert not done
        front.let_go()
        assert await coming == b"held"


async def test_a_cut_connection_is_reset_and_new_ones_work() -> None:
    async with echoing() as (front, (reader, writer)), within(20):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        assert front.cut(random.Random(1)) == 1
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        host, _, port = front.address.partition(":")
        again, other = await asyncio.open_connection(host, int(port))
        other.write(b"after")
        assert await again.readexactly(5) == b"after"
        other.close()


async def test_a_missing_target_resets_the_connection() -> None:
    async with echoing() as (front, _), within(20):
        front.target = 1
        host, _, port = front.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()

        async def links() -> int:
            return len(front.links)

        await poll_until(links, lambda count: count == 1)
