"""How long an event loop was held; and `pilothouse serve` that notes it of its own loop.

    python -m benchmarks.held FILE serve ...

is the command, with a task beside the server that wants to run every millisecond from when the server serves. At its
end FILE holds the longest time, in milliseconds, that it was kept from that, and the longest that the loop's own work
took of a processor between two of its turns: the rest is other processes on the same core. The product has no such
switch.
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
    """The longest time, in seconds, that a task which wants to run every millisecond was kept from it.

    `longest_work`: the longest that the thread worked meanwhile.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_work = 0.0

    async def tick(self) -> None:
        """Looks at the clock until cancelled."""
        last, worked = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, work = time.perf_counter(), time.thread_time()
            self.longest = max(self.longest, now - last - _TICK_SECONDS)
            self.longest_work = max(self.longest_work, work - worked)
            last, worked = now, work


def main() -> None:
    """The command, watched."""
    from pilothouse_server.cli import server

    file = Path(sys.argv.pop(1))
    held = Held()
    atexit.register(lambda: file.write_text(f"{held.longest * 1000} {held.longest_work * 1000}"))
    welcome = server._welcome
    ticking = []

    def watched(*arguments: Any, **named: Any) -> None:
        welcome(*arguments, **named)
        ticking.append(asyncio.get_running_loop().create_task(held.tick()))

    # The last thing that the command does before it waits for its end.
    server._welcome = watched
    command()


if __name__ == "__main__":
    main()
