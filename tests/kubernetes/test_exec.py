"""How a program in a pod ended, according to the cluster's messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count, pairwise

import msgspec
import pytest
from aiohttp import WSMsgType, web

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.credentials import ClusterCredentials
from pilothouse_server.kubernetes.errors import AnswerTooLarge
from pilothouse_server.kubernetes.exec import PROTOCOLS, Ended, Output, program

Speak = Callable[[web.Request, web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def a_cluster_that_says(status: bytes) -> AsyncIterator[ClusterClient]:
    """Yields a client of a cluster that sends this status at a program's end."""

    async def say(_request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x03" + status)

    async with a_cluster_that_speaks(say) as client:
        yield client


@asynccontextmanager
async def a_cluster_that_speaks(speak: Speak) -> AsyncIterator[ClusterClient]:
    async def run(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=PROTOCOLS, autoping=False)
        await socket.prepare(request)
        await speak(request, socket)
        await socket.close()
        return socket

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/shop/pods/web/exec", run)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        found = ClusterCredentials({"server": f"http://127.0.0.1:{runner.addresses[0][1]}"})
        client = await ClusterClient.from_kubeconfig(found.kubeconfig(), name="x")
        try:
            yield client
        finally:
            await client.close()
    finally:
        await runner.cleanup()


async def ended(status: bytes) -> Ended:
    """Returns how a program ended, for a Status."""
    async with (
        a_cluster_that_says(status) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        (end,) = [each async for each in running.output()]
    assert isinstance(end, Ended)
    return end


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("3", 3),
        ("-1", -1),
        ("2147483647", 2**31 - 1),
        # An access violation, in the form of Windows.
        ("3221225477", 3221225477 - 2**32),
        ("9999999999", None),
        ("12345678901", None),
        ("²", None),
        ("--5", None),
        ("", None),
    ],
)
async def test_only_representable_exit_codes_are_returned(said: str, code: int | None) -> None:
    causes = [{"reason": "ExitCode", "message": said}]
    status = {"status": "Failure", "message": "it failed", "details": {"causes": causes}}
    assert await ended(msgspec.json.encode(status)) == (
        Ended(-1, "it failed") if code is None else Ended(code)
    )


@pytest.mark.parametrize("status", [b"", b"null", b"[" * 100_000, b'{"status": 5}', b"\xff"])
@pytest.mark.usefixtures("no_finalizers")
async def test_an_unreadable_status_is_returned_as_a_failed_end(status: bytes) -> None:
    assert await ended(status) == Ended(-1, "the cluster's response cannot be read")


# Messages without a meaning for a program: without a channel, for an unknown channel, as text, and control
# messages of the protocol.
IDLE = {
    "empty": b"\x82\x00",
    "no channel": b"\x82\x02\x09a",
    "text": b"\x81\x01a",
    "pong": b"\x8a\x00",
    "ping": b"\x89\x00",
}
_MANY = 80


@contextmanager
def turns_of_others() -> Iterator[Iterator[int]]:
    """Yields a counter: its next number is how often another task ran in the block."""
    turns = count()

    async def others() -> None:
        while True:
            next(turns)
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    try:
        yield turns
    finally:
        beside.cancel()


@pytest.mark.parametrize("what", IDLE)
async def test_other_tasks_run_during_meaningless_messages(what: str) -> None:
    async def speak(request: web.Request, socket: web.WebSocketResponse) -> None:
        assert request.transport is not None
        end = b'\x03{"status": "Success"}'
        # All of it is sent in one write, so that it is available when the first part is read.
        request.transport.write(b"\x82\x02\x01a" + IDLE[what] * _MANY + bytes((0x82, len(end))) + end)

    async with (
        a_cluster_that_speaks(speak) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        output = running.output()
        assert await anext(output) == Output("stdout", b"a")
        with turns_of_others() as turns:
            assert [each async for each in output] == [Ended(0)]
        assert next(turns) >= _MANY


def frame(first: int, data: bytes = b"") -> bytes:
    """Returns a WebSocket frame as a server sends it.

    `first` says whether the frame ends a message, and its kind.
    """
    size = len(data)
    if size < 126:
        length = bytes((size,))
    else:
        length = b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    return bytes((first,)) + length + data


BEGINNING, GOING_ON, ENDING, WHOLE, PING = 0x02, 0x00, 0x80, 0x82, 0x89
_END = frame(WHOLE, b'\x03{"status": "Success"}')
# More parts than are processed at a time, in fewer bytes than one read of a socket returns.
_PARTS = 4000


@pytest.mark.parametrize("part", [b"", b"a"], ids=["empty", "of a byte"])
async def test_other_tasks_run_between_the_parts_of_a_message(part: bytes) -> None:
    async def speak(request: web.Request, _socket: web.WebSocketResponse) -> None:
        assert request.transport is not None
        parts = frame(BEGINNING, b"\x01") + frame(GOING_ON, part) * _PARTS + frame(ENDING, b"z")
        request.transport.write(frame(WHOLE, b"\x01a") + parts + _END)

    async with (
        a_cluster_that_speaks(speak) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        output = running.output()
        assert await anext(output) == Output("stdout", b"a")
        with turns_of_others() as turns:
            assert [each async for each in output] == [Output("stdout", part * _PARTS + b"z"), Ended(0)]
        # Few parts are processed at a time: without that, other tasks ran only a few times for all parts.
        assert next(turns) >= _PARTS / 128


@pytest.mark.parametrize("part", [b"", b"a"], ids=["empty", "of a byte"])
async def test_a_message_of_too_many_parts_is_too_long(part: bytes) -> None:
    async def speak(request: web.Request, _socket: web.WebSocketResponse) -> None:
        assert request.transport is not None
        request.transport.write(frame(BEGINNING, b"\x01") + frame(GOING_ON, part) * 100_000)

    async with (
        a_cluster_that_speaks(speak) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        with pytest.raises(AnswerTooLarge):
            await anext(running.output())


async def test_messages_in_parts_of_any_size_are_read_completely() -> None:
    """Messages are read correctly however they are cut on the way.

    Pings may arrive between their parts.
    """
    sizes = [0, 1, 124, 125, 126, 127, 1000, 65535, 65536, 70_000]
    said = [bytes((number % 251,)) * size for number, size in enumerate(sizes * 40)]
    sent = frame(BEGINNING, b"\x01")
    for number, data in enumerate(said):
        sent += frame(GOING_ON, data) + (frame(PING, b"there?") if number % 50 == 0 else b"")
        if number % 20 == 19:
            sent += frame(ENDING) + frame(BEGINNING, b"\x01")
    sent += frame(ENDING, b"z") + _END
    cuts, step = [0], 1
    while cuts[-1] < len(sent):
        cuts.append(cuts[-1] + step)
        step = step % 200_000 * 3 + 1

    async def speak(request: web.Request, _socket: web.WebSocketResponse) -> None:
        assert request.transport is not None
        for at, end in pairwise(cuts):
            request.transport.write(sent[at:end])
            await asyncio.sleep(0)

    async with (
        a_cluster_that_speaks(speak) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        *output, end = [each async for each in running.output()]
    assert end == Ended(0)
    assert b"".join(each.data for each in output if isinstance(each, Output)) == b"".join(said) + b"z"


async def test_pings_are_answered_and_many_messages_may_follow_the_status() -> None:
    seen: list[bytes] = []

    async def speak(request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.ping(b"there?")
        message = await socket.receive()
        assert message.type is WSMsgType.PONG
        seen.append(message.data)
        await socket.send_bytes(b'\x03{"status": "Success"}')
        assert request.transport is not None
        request.transport.write(IDLE["pong"] * 100_000)

    async with (
        a_cluster_that_speaks(speak) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        assert [each async for each in running.output()] == [Ended(0)]
    assert seen == [b"there?"]
