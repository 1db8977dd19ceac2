"""Measures how long an event loop is blocked, independent of the machine: by the Python calls in one turn.

Calls of C functions count too. A loop that never yields makes as many calls on a fast machine as on a slow one; a
loop that yields by the clock makes fewer on a slow machine.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Turns:
    """`most`: the largest number of calls in one turn; `made`: the most frequently called functions of that turn."""

    def __init__(self) -> None:
        self.most = 0
        self.made: list[tuple[str, int]] = []
        self._loop = asyncio.get_running_loop()
        self._calls = Counter[Any]()
        self._handle = self._loop.call_soon(self._turn)

    def count(self, frame: Any, event: str, argument: Any) -> None:
        """Counts a call (passed to `sys.setprofile`)."""
        if event == "call":
            self._calls[frame.f_code] += 1
        elif event == "c_call":
            self._calls[argument.__qualname__] += 1

    def _turn(self) -> None:
        # The calls of this method count towards the next turn.
        calls, self._calls = self._calls, Counter()
        if calls.total() > self.most:
            self.most = calls.total()
            self.made = [(getattr(each, "co_qualname", each), times) for each, times in calls.most_common(8)]
        self._handle = self._loop.call_soon(self._turn)

    def end(self) -> None:
        """Stops counting."""
        self._handle.cancel()


@contextmanager
def counted_turns() -> Iterator[Turns]:
    """Counts the calls in each turn of the running loop until the end of the block."""
    turns = Turns()
    before = sys.getprofile()
    sys.setprofile(turns.count)
    try:
        yield turns
    finally:
        sys.setprofile(before)
        turns.end()
