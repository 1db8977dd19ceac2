"""The interface of a program in a simulated container: its streams, environment, files and terminal.

The input and the connections of a pipeline are `Pipe`s with a bounded number of bytes, so that a slow reader slows the
writer down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pilothouse_simulator.values.clock import Clock

_PIPE_BYTES = 65_536

Sink = Callable[[bytes], Awaitable[None]]


class Pipe:
    """Bytes from one writer to one reader."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._closed = False
        self._changed = asyncio.Condition()

    async def write(self, data: bytes) -> None:
        """Adds bytes; waits while the pipe is full. After `close`, the bytes are dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._data) < _PIPE_BYTES or self._closed)
            if not self._closed:
                self._data += data
                self._changed.notify_all()

    async def close(self) -> None:
        """Closes the pipe: later writes are dropped; unread bytes can still be read."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def read(self) -> bytes:
        """Waits for at least one byte and returns all present bytes; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._data or self._closed)
            data = bytes(self._data)
            self._data.clear()
            self._changed.notify_all()
            return data

    async def read_line(self) -> bytes:
        """Returns a line with its newline; at the end of the stream the rest, which may be empty."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: b"\n" in self._data or self._closed or len(self._data) >= _PIPE_BYTES
            )
            end = self._data.find(b"\n") + 1 or len(self._data)
            line = bytes(self._data[:end])
            del self._data[:end]
            self._changed.notify_all()
            return line


@dataclass
class Terminal:
    """The size of a terminal in characters, zero until the client has sent it, and the handler of Ctrl-C."""

    width: int = 0
    height: int = 0
    interrupt: Callable[[], object] = lambda: None


@dataclass
class Process:
    """The environment in which a command runs.

    `files` maps absolute paths to contents; `host_name` is the pod's name.
    """

    clock: Clock
    stdin: Pipe
    stdout: Sink
    stderr: Sink
    environment: dict[str, str]
    files: dict[str, bytes]
    host_name: str
    terminal: Terminal | None = None
    arguments: list[str] = field(default_factory=list)

    async def print_line(self, text: str) -> None:
        """Writes a line to the standard output."""
        await self.stdout(f"{text}\n".encode())

    async def complain(self, text: str) -> None:
        """Writes a line to the standard error."""
        await self.stderr(f"{text}\n".encode())
