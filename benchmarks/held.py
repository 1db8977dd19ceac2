"""How long an event loop was held; and `pilothouse serve` that notes it of its own loop.

    python -m benchmarks.held FILE serve ...

is the command, with a task beside the server that wants to run every millisecond from when the server serves. FILE
holds the longest time, in milliseconds, that it was kept from that. The product has no such switch.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilothouse_client.cli import main as command

_TICK_SECONDS = 0.001


class Held:
    """The longest time, in seconds, that a task which wants to run every millisecond was kept from it."""

    def __init__(self, tell: Callable[[float], object] = lambda _: None) -> None:
        self.longest = 0.0
        self._tell = tell

    async def tick(self) -> None:
        """Looks at the clock until cancelled."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.perf_counter()
            if now - last - _TICK_SECONDS > self.longest:
                self.longest = now - last - _TICK_SECONDS
                self._tell(self.longest)
                now = time.perf_counter()
            last = now


def main() -> None:
    """The command, watched."""
    from pilothouse_server import cli

    file = Path(sys.argv.pop(1))
    file.write_text("0")
    held = Held(lambda seconds: file.write_text(str(seconds * 1000)))
    welcome = cli._welcome
    ticking = []

    def watched(*arguments: Any, **named: Any) -> None:
        welcome(*arguments, **named)
        ticking.append(asyncio.get_running_loop().create_task(held.tick()))

    # The last thing that the command does before it waits for its end.
    cli._welcome = watched
    command()


if __name__ == "__main__":
    main()
