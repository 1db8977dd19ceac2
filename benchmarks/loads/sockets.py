"""Consoles without a browser: watches over WebSockets like the page's, and the time until all have all events."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode

import aiohttp

from benchmarks.child import answering
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_server.runtime.tasks import cancel_and_wait

_LIMIT_SECONDS = 120.0
_TRAILERS = 0x80
_CHANGES = frozenset(
    (resource.CHANGE_TYPE_ADDED, resource.CHANGE_TYPE_MODIFIED, resource.CHANGE_TYPE_DELETED)
)


class Consoles:
    """The open sockets of this process."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = 0
        self._done = asyncio.Event()

    async def open(self, url: str, token: str, request: str, consoles: int) -> None:
        """Opens the sockets, and returns when each has its first state."""
        await self.close()
        self._session = aiohttp.ClientSession()
        standing = asyncio.Semaphore(0)
        for _ in range(consoles):
            work = self._follow(self._session, url, token, b64decode(request), standing)
            self._tasks.append(asyncio.create_task(work))
        async with asyncio.timeout(_LIMIT_SECONDS):
            for _ in range(consoles):
                await standing.acquire()

    async def expect(self, events: int) -> None:
        """Starts to count, until each socket has received `events` events."""
        self._done.clear()
        self._waiting = events * len(self._tasks)

    async def finished(self) -> float:
        """Returns the monotonic time at which the last of the expected events arrived."""
        async with asyncio.timeout(_LIMIT_SECONDS):
            await self._done.wait()
        return time.monotonic()

    async def close(self) -> None:
        """Closes the sockets."""
        await cancel_and_wait(*self._tasks)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str,
        request: bytes,
        standing: asyncio.Semaphore,
    ) -> None:
        async with session.ws_connect(url) as socket:
            await socket.send_bytes(_framed(f"authorization: Bearer {token}\r\n".encode(), _TRAILERS))
            await socket.send_bytes(_framed(request, 0))
            await socket.send_bytes(_framed(b"", _TRAILERS))
            async for message in socket:
                if message.data[0] & _TRAILERS:
                    raise RuntimeError(f"a watch ended: {message.data[5:]!r}")
                kind = pb.WatchResponse.FromString(message.data[5:]).change_type
                if kind == resource.CHANGE_TYPE_SYNCED:
                    standing.release()
                self._waiting -= kind in _CHANGES
                if self._waiting == 0:
                    self._done.set()


def _framed(contents: bytes, flags: int) -> bytes:
    return bytes((flags,)) + len(contents).to_bytes(4, "big") + contents


def main() -> None:
    """Runs the process."""
    consoles = Consoles()
    answering(
        {
            "open": consoles.open,
            "close": consoles.close,
            "expect": consoles.expect,
            "finished": consoles.finished,
        }
    )


if __name__ == "__main__":
    main()
