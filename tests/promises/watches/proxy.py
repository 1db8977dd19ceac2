"""A TCP proxy to a server; its connections can be cut, held and delayed.

Clients keep its address while the server behind it is killed and started again on another port.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class Proxy:
    """Listens on a free port of the loopback interface.

    New connections go to the port `target`.
    """

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self.target = 0
        self.delay_seconds = delay_seconds
        self.held = False
        self.links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Returns the address for clients as HOST:PORT."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self, choose: random.Random, share: float = 1.0) -> int:
        """Resets about this share of the connections; returns how many."""
        chosen = [link for link in self.links if choose.random() < share]
        for link in chosen:
            link.cut()
        return len(chosen)

    def hold(self) -> None:
        """Forwards nothing from now on. Connections stay open for both ends."""
        self.held = True
        for link in self.links:
            link.pause()

    def let_go(self) -> None:
        """Forwards data again, the held data first."""
        self.held = False
        for link in self.links:
            link.resume()

    async def open(self) -> None:
        """Begins to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)

    async def close(self) -> None:
        """Cuts everything and stops listening."""
        assert self._server is not None
        self._server.close()
        for link in list(self.links):
            link.cut()
        await self._server.wait_closed()


@asynccontextmanager
async def proxy(delay_seconds: float = 0.0) -> AsyncIterator[Proxy]:
    """Yields a proxy until the end of the block."""
    made = Proxy(delay_seconds)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


class _Link:
    """The two halves of one connection."""

    def __init__(self, owner: Proxy) -> None:
        self._owner = owner
        self._halves: list[asyncio.Transport] = []
        owner.links.add(self)

    def join(self, transport: asyncio.Transport) -> None:
        self._halves.append(transport)
        if self._owner.held:
            transport.pause_reading()

    def cut(self) -> None:
        self._owner.links.discard(self)
        for half in self._halves:
            half.abort()

    def pause(self) -> None:
        for half in self._halves:
            if not half.is_closing():
                half.pause_reading()

    def resume(self) -> None:
        for half in self._halves:
            if not half.is_closing():
                half.resume_reading()


class _Half(asyncio.Protocol):
    """Forwards received data to the other half, no faster than that can write it."""

    def __init__(self, owner: Proxy, link: _Link) -> None:
        self._owner = owner
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None
        self._waiting: deque[bytes] = deque()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._link.join(transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.is_closing():
            return
        if self._owner.delay_seconds:
            # Timers that are due in the same moment fire in any order, so each forwards the oldest data.
            self._waiting.append(data)
            asyncio.get_running_loop().call_later(self._owner.delay_seconds, self._pass_on)
        else:
            self.other.write(data)

    def _pass_on(self) -> None:
        data = self._waiting.popleft()
        if self.other is not None and not self.other.is_closing():
            self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.is_closing() and not self._owner.held:
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.cut()


class _Near(_Half):
    """The half towards the client.

    It connects to the server, and reads only after that.
    """

    def __init__(self, owner: Proxy) -> None:
        super().__init__(owner, _Link(owner))
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        far = _Half(self._owner, self._link)
        far.other = self.transport
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: far, "127.0.0.1", self._owner.target)
        except OSError:
            self._link.cut()
            return
        self.other = transport
        assert self.transport is not None
        if self.transport.is_closing():
            self._link.cut()
        elif not self._owner.held:
            self.transport.resume_reading()
