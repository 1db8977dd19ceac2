"""Processes that share a port begin to listen one after the other.

So callers of every address reach each process. The kernel numbers the listeners of a port in the order in which they
begin. Each address has the listener of one number in each block of `LINES`. If the listeners of two processes were
mixed, both listeners of an address could belong to one process.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pilothouse_server.launch.processes import link
from pilothouse_server.launch.processes.child import ServerProcess
from pilothouse_server.launch.processes.link import Prepared, ServingState
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import within


@dataclass
class Child:
    """A server process as its supervisor sees it, and the process's own end of the socket."""

    start: asyncio.Task[None]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def sends(self, message: Prepared | ServingState) -> None:
        self.writer.write(link.encode(message))


@asynccontextmanager
async def starting(number: int, listening: asyncio.Lock) -> AsyncIterator[Child]:
    """Yields a process that does nothing, with its start: the test sends the messages of the process."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(["sleep", "infinity"])
    child = ServerProcess(number, process, *await asyncio.open_connection(sock=ours))
    start = asyncio.create_task(child.serving(listening))
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield Child(start, reader, writer)
    finally:
        await cancel_and_wait(start)
        writer.close()
        child.kill()
        await child.ended()


async def test_processes_begin_to_listen_one_after_the_other() -> None:
    async with AsyncExitStack() as stack, within(10.0):
        listening = asyncio.Lock()
        children = [await stack.enter_async_context(starting(number, listening)) for number in (1, 2)]
        reading = [asyncio.create_task(child.reader.readline()) for child in children]
        for child in children:
            child.sends(Prepared())
        (chosen,), (waiting,) = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        assert chosen.result() == link.LISTEN
        first, second = children if chosen is reading[0] else children[::-1]
        assert not first.start.done()
        assert not waiting.done()
        first.sends(ServingState())
        await first.start
        assert await waiting == link.LISTEN
        second.sends(ServingState())
        await second.start


async def test_a_process_that_ends_gives_its_turn_to_the_next() -> None:
    async with AsyncExitStack() as stack, within(10.0):
        listening = asyncio.Lock()
        children = [await stack.enter_async_context(starting(number, listening)) for number in (1, 2)]
        first, second = children
        first.sends(Prepared())
        assert await first.reader.readline() == link.LISTEN
        second.sends(Prepared())
        first.writer.close()
        assert isinstance((await asyncio.gather(first.start, return_exceptions=True))[0], Exception)
        assert await second.reader.readline() == link.LISTEN
        second.sends(ServingState())
        await second.start
