"""What the other side sends around its answer has a bound; that of aiohttp itself has none, which is the control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from pilothouse_server.outbound import ANYWHERE, failure

_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_ANSWER = _CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"
_MIB = 1024 * 1024
# Each ends in an answer like any other.
AROUND = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + _ANSWER,
    "103": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 1000 + _ANSWER,
    "an extension": _CHUNKED + b"1;" + b"a" * 2 * _MIB + b"\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "small chunks": _CHUNKED + b"1\r\n \r\n" * 600_000 + b"2\r\n{}\r\n0\r\n\r\n",
}
USUAL = {
    "a few": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + _ANSWER,
    "lines by themselves": _CHUNKED
    + b"1f\r\n"
    + (b"2026-11-28T05:00:00.123456789Z\n\r\n1f\r\n" * _MIB)[: 4 * _MIB],
}


@asynccontextmanager
async def answering(sent: bytes) -> AsyncIterator[str]:
    """A server that answers every request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(sent)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def body(connector: aiohttp.TCPConnector, url: str) -> bytes:
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return await response.read()


@pytest.mark.parametrize("what", AROUND)
async def test_too_much_around_an_answer_ends_the_connection(what: str) -> None:
    async with answering(AROUND[what]) as url:
        assert (await body(aiohttp.TCPConnector(), url)).strip() == b"{}"
        with pytest.raises(aiohttp.ClientError) as refused:
            await body(ANYWHERE.connector(), url)
        assert failure(refused.value) in (
            "what answers there is no HTTP, or too much of it",
            "its answer broke off, or cannot be decompressed",
        )


async def test_what_is_usual_is_read() -> None:
    async with (
        answering(USUAL["a few"]) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
    ):
        # Each request begins anew, on one connection.
        for _ in range(10):
            async with session.get(url) as response:
                assert await response.read() == b"{}"


async def test_short_lines_of_a_log_are_read_for_as_long_as_they_come() -> None:
    async with (
        answering(USUAL["lines by themselves"]) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
        session.get(url) as response,
    ):
        read = 0
        while read < 2 * _MIB:
            read += len(await response.content.readany())
        assert not response.content.at_eof()
