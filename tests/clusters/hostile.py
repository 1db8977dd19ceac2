"""A server that answers as no cluster should: too much, too slowly, or something else altogether.

It speaks HTTP by hand, because a library would not let it misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import runs_out

MEGABYTE = 1024 * 1024
Answer = Callable[["Asked"], Awaitable[None]]


class Asked:
    """One request, and the way back."""

    def __init__(self, method: str, target: str, head: str, writer: asyncio.StreamWriter) -> None:
        self.method, self.target, self.head, self.writer = method, target, head, writer

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, status: int = 200, **headers: str) -> None:
        """Sends the head of an answer; `Content_Length` stands for Content-Length."""
        lines = [f"HTTP/1.1 {status} Something"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def whole(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Sends an answer as it should be."""
        await self.begin(status, Content_Type="application/json", Content_Length=str(len(body)), **headers)
        await self.send(body)


class HostileServer:
    """`answer` may be replaced while it runs; `requests` counts the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests = 0
        self.url = ""

    def kubeconfig(self, **cluster: Any) -> dict[str, Any]:
        """Its kubeconfig."""
        return {
            "current-context": "h",
            "contexts": [{"name": "h", "context": {"cluster": "h", "user": "h"}}],
            "clusters": [{"name": "h", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "h", "user": {"token": "t"}}],
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    method, target, _ = head.split("\r\n")[0].split(" ")
                    self.requests += 1
                    await self.answer(Asked(method, target, head, writer))
            finally:
                writer.transport.abort()
                await writer.wait_closed()


@asynccontextmanager
async def hostile_server(answer: Answer) -> AsyncIterator[HostileServer]:
    """A server on this machine that answers so."""
    hostile = HostileServer(answer)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(hostile.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    hostile.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield hostile
    finally:
        server.close()
        await cancel_and_wait(*tasks)


@functools.cache
def bomb(megabytes: int) -> bytes:
    """Gzip of so many megabytes of blanks, a thousandth of their size."""
    packing = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packing.compress(b" " * MEGABYTE) for _ in range(megabytes)) + packing.flush()


def exploding(packed: bytes, status: int = 200) -> Answer:
    """An answer that is small on the way."""

    async def answer(asked: Asked) -> None:
        await asked.whole(packed, status, Content_Encoding="gzip")

    return answer


def endless(part: bytes, status: int = 200) -> Answer:
    """An answer that begins well, and goes on."""

    async def answer(asked: Asked) -> None:
        await asked.begin(status, Content_Type="application/json", Transfer_Encoding="chunked")
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        while True:
            await asked.send(chunk)

    return answer


async def in_pieces(asked: Asked) -> None:
    """An answer without end, in chunks of a byte."""
    await asked.begin(Content_Type="application/json", Transfer_Encoding="chunked")
    while True:
        await asked.send(b"1\r\n \r\n" * 10_000)


async def endless_headers(asked: Asked) -> None:
    """A head that does not end."""
    await asked.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await asked.send(b"X-More: " + b"h" * 1000 + b"\r\n")


async def endless_header(asked: Asked) -> None:
    """One header that does not end."""
    await asked.send(b"HTTP/1.1 200 OK\r\nX-More: ")
    while True:
        await asked.send(b"h" * 65536)


async def endless_interim_answers(asked: Asked) -> None:
    """Interim answers, and never the one that they announce."""
    while True:
        await asked.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


async def dripping(asked: Asked) -> None:
    """An answer of a large size that comes a byte at a time."""
    await asked.begin(Content_Type="application/json", Content_Length="1000000")
    while True:
        await asked.send(b" ")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(runs_out(0.01)):
                await asyncio.Event().wait()


async def silent(_asked: Asked) -> None:
    """Nothing, for ever."""
    await asyncio.Event().wait()


async def rubbish(asked: Asked) -> None:
    """No HTTP."""
    await asked.send(b"\x00\xff\x15 rubbish \r\n\r\n" * 10)
    await asyncio.Event().wait()


async def cut_off(asked: Asked) -> None:
    """Less than was announced."""
    await asked.begin(Content_Type="application/json", Content_Length="1000")
    await asked.send(b'{"gitVersion"')
    asked.writer.close()
    await asked.writer.wait_closed()


async def reset(asked: Asked) -> None:
    """An end without an answer."""
    asked.writer.transport.abort()


def leading_to(url: str) -> Answer:
    """A redirect."""

    async def answer(asked: Asked) -> None:
        await asked.whole(b"", 302, Location=url)

    return answer


def saying(body: bytes, status: int = 200) -> Answer:
    """Returns the same answer to every request."""

    async def answer(asked: Asked) -> None:
        await asked.whole(body, status)

    return answer


def alive_but(lists: Answer) -> Answer:
    """A cluster that tells its version and lets itself be looked at, and answers all else in another way."""

    async def answer(asked: Asked) -> None:
        if asked.path == "/version":
            await asked.whole(b'{"gitVersion": "v1.36.2"}')
        elif asked.path.startswith("/api/v1/namespaces/"):
            status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            await asked.whole(json.dumps(status).encode(), 404)
        else:
            await lists(asked)

    return answer
