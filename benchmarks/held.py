"""Measures how long an event loop is blocked; also `pilothouse serve` with such a measurement of its own loop.

    python -m benchmarks.held FILE serve ...

runs the command, and next to the server a task that is due every millisecond, from the moment that the server serves.
At the end, FILE contains two times in milliseconds: the longest delay of the task, and the longest CPU time that the
thread used between two runs of the task. The difference is due to other processes on the same core. The product has
no such option.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
import time
from pathlib import Path
from typing import Any

from pilothouse_client.cli import main as command

_TICK_SECONDS = 0.001


class Held:
    """The longest delay, in seconds, of a task that is due every millisecond.

    `longest_work`: the longest CPU time of the thread between two runs of the task.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_work = 0.0

    async def tick(self) -> None:
        """Reads the clock every millisecond until cancelled."""
        last, worked = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, work = time.perf_counter(), time.thread_time()
            self.longest = max(self.longest, now - last - _TICK_SECONDS)
            self.longest_work = max(self.longest_work, work - worked)
            last, worked = now, work


def main() -> None:
    """Runs the command with the measurement."""
    from pilothouse_server.cli import server

    file = Path(sys.argv.pop(1))
    held = Held()
    atexit.register(lambda: file.write_text(f"{held.longest * 1000} {held.longest_work * 1000}"))
    welcome = server._welcome
    ticking = []

    def watched(*arguments: Any, **named: Any) -> None:
        welcome(*arguments, **named)
        ticking.append(asyncio.get_running_loop().create_task(held.tick()))

    # The command calls `_welcome` last, before it waits for its end.
    server._welcome = watched
    command()


if __name__ == "__main__":
    main()
