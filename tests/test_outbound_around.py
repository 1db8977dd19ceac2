"""The bytes around an answer of the other side have a bound, and many small pieces are read with pauses.

aiohttp itself has neither, which is the control.
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
# Each ends in an answer like any other.
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
    """A server that answers every request with these bytes; `ends`: and closes the connection."""

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
async def test_too_much_around_an_answer_ends_the_connection(what: str) -> None:
    async with answering(AROUND[what]) as url:
        assert (await body(aiohttp.TCPConnector(), url)).strip() == b"{}"
        with pytest.raises(aiohttp.ClientError) as refused:
            await body(ANYWHERE.connector(), url)
        assert failure(refused.value) in (
            "its response is not HTTP, or too long",
            "its response broke off, or cannot be decompressed",
        )


async def test_what_is_usual_is_read() -> None:
    async with (
        answering(USUAL["a few"]) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
    ):
        # Each request begins at zero, on one connection.
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


_LINES = 40_000
# Each has so many lines, in some reads of a socket; and what it says.
SMALL = {
    "chunks of two bytes": (_CHUNKED + b"2\r\nab\r\n" * (_LINES // 2) + b"0\r\n\r\n", b"ab" * (_LINES // 2)),
    "lines of two bytes": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * _LINES) + b"ab\n" * _LINES,
        b"ab\n" * _LINES,
    ),
    "lines until the end": (b"HTTP/1.1 200 OK\r\n\r\n" + b"ab\n" * _LINES, b"ab\n" * _LINES),
}


async def _read_slowly(connector: aiohttp.TCPConnector, url: str, pause: int) -> tuple[bytes, int]:
    """The body, by a reader that pauses for so many turns of the loop, and how many others had until its end."""
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
async def test_small_pieces_leave_turns_to_others(what: str) -> None:
    sent, said = SMALL[what]
    # One connection alone, which the server closes behind the answer where that has no other end.
    async with answering(sent, ends=what == "lines until the end") as url:
        for pause in (0, 50):
            read, turns = await _read_slowly(ANYWHERE.connector(), url, pause)
            assert read == said
            assert turns >= _LINES / 512
        read, _ = await _read_slowly(aiohttp.TCPConnector(), url, 0)
        assert read == said


async def test_of_many_connections_with_small_pieces_one_goes_on_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One cluster is asked by ten, and each in pauses of its own took the whole loop."""
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


async def test_small_pieces_behind_an_answer_are_none_of_the_next() -> None:
    """The connection is used no more, though the answer itself has ended."""
    async with (
        answering(_ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 10_000) as url,
        aiohttp.ClientSession(connector=ANYWHERE.connector()) as session,
    ):
        for _ in range(3):
            async with session.get(url) as response:
                assert await response.read() == b"{}"
