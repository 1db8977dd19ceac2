"""One of several server processes: the program that a supervisor starts.

It is the same server as that of `pilothouse serve` with one process. A line on its standard input contains
its orders; its only argument is the event loop to use. Its log lines contain its number.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pilothouse_server.launch.processes import link
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.launch.processes.link import ChildOrders, Failed, Prepared, ServingState
from pilothouse_server.launch.processes.metrics import figures_of_this_process
from pilothouse_server.runtime import event_loop, log_lines
from pilothouse_server.runtime.process_tuning import (
    collect_rarely,
    give_back_large_buffers,
    no_collections,
    served_calls_go_first,
)
from pilothouse_server.runtime.tasks import cancel_and_wait

if TYPE_CHECKING:
    from pilothouse_server.app import Application

_ENDING = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Serves until SIGTERM, or until the supervisor has ended."""
    give_back_large_buffers()
    return event_loop.run(_run(socket.socket(fileno=sys.stdin.fileno())), sys.argv[1])


async def _run(supervisor: socket.socket) -> int:
    turn, stopping = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        # This also ends a start that waits for its turn.
        turn.set()
        stopping.set()

    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    reader, writer = await asyncio.open_connection(sock=supervisor, limit=link.LINE_BYTES)
    orders = link.orders_of(await reader.readline())
    log_lines.configure(orders.settings.log_level, orders.settings.log_format, process=orders.number)
    if os.getppid() != orders.launcher:
        # The supervisor was killed before the kernel registered that this process ends with it.
        return 1
    answering = asyncio.create_task(_answer(reader, writer, turn, stop), name="supervisor")
    try:
        return await _serve(orders, writer, turn, stopping)
    finally:
        await cancel_and_wait(answering)
        writer.close()
        # The process is ending: a signal while the loop is being closed would be reported as an error of the handler.
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)


async def _serve(
    orders: ChildOrders, writer: asyncio.StreamWriter, turn: asyncio.Event, stopping: asyncio.Event
) -> int:
    application: Application | None = None

    async def before_listening() -> None:
        writer.write(link.encode(Prepared()))
        await turn.wait()

    with no_collections():
        from pilothouse_server.app import Application
    try:
        try:
            application = Application(orders.settings, orders.kubeconfigs)
            await application.start(before_listening)
        except Exception as error:
            if (why := words_of(error)) is None:
                raise
            writer.write(link.encode(Failed(why, application.password_made if application else None)))
            return 1
        collect_rarely()
        served_calls_go_first()
        writer.write(link.encode(ServingState(application.password_made)))
        await stopping.wait()
    finally:
        if application is not None:
            await application.stop()
    return 0


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    turn: asyncio.Event,
    stop: Callable[[], None],
) -> None:
    """Sends metrics at each request, and sets `turn` when the process may listen, until the supervisor has ended."""
    while line := await reader.readline():
        if line == link.LISTEN:
            turn.set()
            continue
        writer.write(link.encode(figures_of_this_process()))
        await writer.drain()
    stop()


if __name__ == "__main__":
    sys.exit(main())
