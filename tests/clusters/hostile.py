"""A server that misbehaves as a cluster.

It sends too much, too slowly, or something else altogether. It writes HTTP by hand, because an HTTP library
prevents such responses.
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
    """One request, and the connection for its response."""

    def __init__(self, method: str, target: str, head: str, writer: asyncio.StreamWriter) -> None:
        self.method, self.target, self.head, self.writer = method, target, head, writer

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, status: int = 200, **headers: str) -> None:
        """Sends the head of a response; `Content_Length` stands for Content-Length."""
        lines = [f"HTTP/1.1 {status} Something"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def whole(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Sends a well-formed response."""
        await self.begin(status, Content_Type="application/json", Content_Length=str(len(body)), **headers)
        await self.send(body)


class HostileServer:
    """A server with a replaceable `answer`; `requests` counts the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests = 0
        self.url = ""

    def kubeconfig(self, **cluster: Any) -> dict[str, Any]:
        """Returns a kubeconfig for this server."""
        return {
            "current-context": "h",
            "contexts": [{"name": "h", "context": {"cluster": "h", "user": "h"}}],
            "clusters": [{"name": "h", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "h", "user": {"token": "t"}}],
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
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
    """Runs a server on this machine that responds with `answer`."""
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
    """Returns gzip data of this many megabytes of spaces, a thousandth of their size."""
    packing = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packing.compress(b" " * MEGABYTE) for _ in range(megabytes)) + packing.flush()


def exploding(packed: bytes, status: int = 200) -> Answer:
    """Returns a response that is small before decompression."""

    async def answer(asked: Asked) -> None:
        await asked.whole(packed, status, Content_Encoding="gzip")

    return answer


def endless(part: bytes, status: int = 200) -> Answer:
    """Returns a response that begins correctly and never ends."""

    async def answer(asked: Asked) -> None:
        await asked.begin(status, Content_Type="application/json", Transfer_Encoding="chunked")
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        while True:
            await asked.send(chunk)

    return answer


async def in_pieces(asked: Asked) -> None:
    """Sends a response without end, in chunks of one byte."""
    await asked.begin(Content_Type="application/json", Transfer_Encoding="chunked")
    while True:
        await asked.send(b"1\r\n \r\n" * 10_000)


async def endless_headers(asked: Asked) -> None:
    """Sends a head with more and more headers."""
    await asked.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await asked.send(b"X-More: " + b"h" * 1000 + b"\r\n")


async def endless_header(asked: Asked) -> None:
    """Sends one header that never ends."""
    await asked.send(b"HTTP/1.1 200 OK\r\nX-More: ")
    while True:
        await asked.send(b"h" * 65536)


async def endless_interim_answers(asked: Asked) -> None:
    """Sends interim responses, and never the final one."""
    while True:
        await asked.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


async def dripping(asked: Asked) -> None:
    """Sends a large response one byte at a time."""
    await asked.begin(Content_Type="application/json", Content_Length="1000000")
    while True:
        await asked.send(b" ")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(runs_out(0.01)):
                await asyncio.Event().wait()


async def silent(_asked: Asked) -> None:
    """Sends nothing."""
    await asyncio.Event().wait()


async def rubbish(asked: Asked) -> None:
    """Sends bytes that are not HTTP."""
    await asked.send(b"\x00\xff\x15 rubbish \r\n\r\n" * 10)
    await asyncio.Event().wait()


async def cut_off(asked: Asked) -> None:
    """Sends less than the announced length."""
    await asked.begin(Content_Type="application/json", Content_Length="1000")
    await asked.send(b'{"gitVersion"')
    asked.writer.close()
    await asked.writer.wait_closed()


async def reset(asked: Asked) -> None:
    """Closes the connection without a response."""
    asked.writer.transport.abort()


def leading_to(url: str) -> Answer:
    """Returns a redirect."""

    async def answer(asked: Asked) -> None:
        await asked.whole(b"", 302, Location=url)

    return answer


def saying(body: bytes, status: int = 200) -> Answer:
    """Returns the same response to every request."""

    async def answer(asked: Asked) -> None:
        await asked.whole(body, status)

    return answer


def alive_but(lists: Answer) -> Answer:
    """Returns a healthy cluster that sends `lists` for other requests.

    The cluster reports its version and passes the health check.
    """

    async def answer(asked: Asked) -> None:
        if asked.path == "/version":
            await asked.whole(b'{"gitVersion": "v1.36.2"}')
        elif asked.path.startswith("/api/v1/namespaces/"):
            status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            await asked.whole(json.dumps(status).encode(), 404)
        else:
            await lists(asked)

    return answer
