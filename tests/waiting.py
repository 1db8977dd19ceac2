"""Waiting in tests: for conditions, with deadlines that grow with one setting; never for a fixed time.

A number of seconds in a test is the longest duration on a quiet machine, or the promised one. The deadline in use is
that number times `PILOTHOUSE_TEST_PATIENCE`, because a machine that does other work takes several times as long, and
a test's verdict must not depend on the load. With a patience of 1, the deadlines are the numbers as written.

    await poll_until(lambda: world.count(), lambda count: count == 3, seconds=5.0)
    async with within(10.0): ...                      # asyncio.timeout, made patient
    await asyncio.wait_for(process.wait(), patient(10.0))
    call(timeout=runs_out(0.5))                       # the test is about the end of this time

No wait is longer than the rest of the test's own time limit (`tests.hang_and_leak`). A wait that fails therefore ends
with its own message, before the alarm ends the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.virtual_time import VirtualTimeLoop

T = TypeVar("T")

PATIENCE = float(os.environ.get("PILOTHOUSE_TEST_PATIENCE", "6"))
# The first polls follow each other closely; later ones cost a busy machine less: most polls are calls of the API,
# which take 2 to 4 ms of CPU time. An expensive poll takes half of the time at most: the pause after it is as long as
# the poll.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _GROWTH = 0.01, 0.1, 1.5
_LONGEST_REST_SECONDS = 0.5
# A deadline that is computed after the limit still leaves a test time to clean up.
_SHORTEST_DEADLINE_SECONDS = 1.0
_limit = math.inf


def set_limit(seconds: float) -> None:
    """Sets the time that is left for waits from now on; `math.inf` removes the limit."""
    global _limit
    _limit = time.monotonic() + seconds


def patient(seconds: float) -> float:
    """Returns the deadline, in seconds, for a step that takes at most `seconds` on a quiet machine.

    Virtual time passes equally fast on every machine, so there the deadline is `seconds` itself. In real time, the
    deadline is at most the rest of the test's time limit.
    """
    if _time_is_virtual():
        return seconds
    left = max(_limit - time.monotonic(), _SHORTEST_DEADLINE_SECONDS)
    return min(seconds * PATIENCE, left)


def _time_is_virtual() -> bool:
    try:
        return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    except RuntimeError:
        return False


def within(seconds: float) -> asyncio.Timeout:
    """Returns a context manager that raises TimeoutError if its block takes longer than `patient(seconds)`."""
    return asyncio.timeout(patient(seconds))


def runs_out(seconds: float) -> float:
    """Marks a timeout that the test expects to expire: it needs no patience, and is returned unchanged."""
    return seconds


class Stopwatch:
    """Measures the seconds since it was created, for events that must not happen earlier or more often.

    For the longest time that something may take, use a deadline instead: a busy machine only makes the time longer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def passed(self) -> float:
        """Returns the seconds that have passed in the loop's time."""
        return self._loop.time() - self._began


async def poll_until(
    look: Callable[[], Awaitable[T]],
    holds: Callable[[T], object] = bool,
    *,
    seconds: float = 20.0,
    what: str = "the condition",
    woken_by: Callable[[], Awaitable[object]] | None = None,
) -> T:
    """Polls until the condition `holds` for the value, and returns it; polls after a pause or after `woken_by`.

    Raises AssertionError with the last value after `patient(seconds)`, even if a poll does not return.
    """
    longest = patient(seconds)
    pause = _FIRST_PAUSE_SECONDS
    seen: list[T] = []
    deadline = asyncio.timeout(longest)
    loop = asyncio.get_running_loop()
    try:
        async with deadline:
            while True:
                began = loop.time()
                seen[:] = [await look()]
                if holds(seen[0]):
                    return seen[0]
                rest = max(pause, min(loop.time() - began, _LONGEST_REST_SECONDS))
                if woken_by is None:
                    await asyncio.sleep(rest)
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(woken_by(), rest)
                pause = min(pause * _GROWTH, _LONGEST_PAUSE_SECONDS)
    except TimeoutError:
        if not deadline.expired():
            raise
        last = f"last seen: {seen[0]!r}" if seen else "no look returned"
        raise AssertionError(f"{what} did not come true within {longest:.3g} s; {last}") from None
