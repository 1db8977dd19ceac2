"""The bytes around a response's body are limited, and many small pieces are read with pauses.

aiohttp itself does neither, and serves as the control.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from pilothouse_server.outbound.connections import _Bounded
from pilothouse_server.outbound.destinations import ANYWHERE, failure

_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_ANSWER = _CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"
_MIB = 1024 * 1024
# Each ends with an ordinary response.
AROUND = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + _ANSWER,
    "103": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 1000 + _ANSWER,
    "an extension": _CHUNKED + b"1;" + b"a" * 2 * _MIB + b"\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "small chunks": _CHUNKED + b"1;%b\r\n \r\n" % (b"a" * 64) * 20_000 + b"2\r\n{}\r\n0\r\n\r\n",
}
USUAL = {
    "a few": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + _ANSWER,
    "lines by themselves": _CHUNKED
    + b"1f\r\n"
    + (b"2026-11-28T05:00:00.123456789Z\n\r\n1f\r\n" * _MIB)[: 4 * _MIB],
}


@asynccontextmanager
async def answering(sent: bytes, *, ends: bool = False) -> AsyncIterator[str]:
    """Serves these bytes as the response to every request; `ends` closes the connection after each."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(sent)
                await writer.drain()
                if ends:
                    break
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
async def test_too_many_bytes_around_a_response_end_the_connection(what: str) -> None:
    async with answering(AROUND[what]) as url:
        assert (await body(aiohttp.TCPConnector(), url)).strip() == b"{}"
        with pytest.raises(aiohttp.ClientError) as refused:
            await body(ANYWHERE.connector(), url)
        assert failure(refused.value) in (
            "its response is not HTTP, or too long",
            "its response broke off, or cannot be decompressed",
        )


async def test_a_few_interim_responses_are_read() -> None:
    async with (
        answering(USUAL["a few"]) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
    ):
        # The count starts at zero for each request on a connection.
        for _ in range(10):
            async with session.get(url) as response:
                assert await response.read() == b"{}"


async def test_short_lines_of_a_log_are_read_without_a_limit() -> None:
    async with (
        answering(USUAL["lines by themselves"]) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
        session.get(url) as response,
    ):
        read = 0
        while read < 2 * _MIB:
            read += len(await response.content.readany())
        assert not response.content.at_eof()


_LINES = 40_000
# Each response has `_LINES` lines, in few reads of a socket; with it, its body.
SMALL = {
    "chunks of two bytes": (_CHUNKED + b"2\r\nab\r\n" * (_LINES // 2) + b"0\r\n\r\n", b"ab" * (_LINES // 2)),
    "lines of two bytes": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * _LINES) + b"ab\n" * _LINES,
        b"ab\n" * _LINES,
    ),
    "lines until the end": (b"HTTP/1.1 200 OK\r\n\r\n" + b"ab\n" * _LINES, b"ab\n" * _LINES),
}


async def _read_slowly(connector: aiohttp.TCPConnector, url: str, pause: int) -> tuple[bytes, int]:
    """Returns the body, read with `pause` loop turns between its parts, and the turns that another task had."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        beside = asyncio.create_task(others())
        parts = []
        async for part in response.content.iter_any():
            parts.append(part)
            for _ in range(pause):
                await asyncio.sleep(0)
        beside.cancel()
    return b"".join(parts), turns


@pytest.mark.parametrize("what", SMALL)
async def test_small_pieces_leave_turns_to_other_tasks(what: str) -> None:
    sent, said = SMALL[what]
    # Each read uses one connection. The server closes it after the response if nothing else marks the end.
    async with answering(sent, ends=what == "lines until the end") as url:
        for pause in (0, 50):
            read, turns = await _read_slowly(ANYWHERE.connector(), url, pause)
            assert read == said
            assert turns >= _LINES / 512
        read, _ = await _read_slowly(aiohttp.TCPConnector(), url, 0)
        assert read == said


async def test_many_connections_with_small_pieces_continue_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten requests go to one cluster: with separate pauses, the ten together took up the whole event loop."""
    sent, said = SMALL["chunks of two bytes"]
    went_on, at_once = 0, list[int]()
    go_on = _Bounded._go_on

    def counted(self: _Bounded) -> None:
        nonlocal went_on
        went_on += 1
        go_on(self)

    async def others() -> None:
        nonlocal went_on
        while True:
            at_once.append(went_on)
            went_on = 0
            await asyncio.sleep(0)

    async def read() -> bytes:
        async with session.get(url) as response:
            return await response.read()

    monkeypatch.setattr(_Bounded, "_go_on", counted)
    async with answering(sent) as url, aiohttp.ClientSession(connector=ANYWHERE.connector()) as session:
        beside = asyncio.create_task(others())
        assert await asyncio.gather(*(read() for _ in range(10))) == [said] * 10
        beside.cancel()
    assert sum(at_once) >= 5 * _LINES / 512
    assert max(at_once) == 1


async def test_small_pieces_after_a_response_are_not_part_of_the_next() -> None:
    """The connection is not used again, although the response itself is complete."""
    async with (
        answering(_ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 10_000) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
    ):
        for _ in range(3):
            async with session.get(url) as response:
                assert await response.read() == b"{}"
