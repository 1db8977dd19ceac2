"""Waiting in tests: for conditions, with deadlines that grow with one setting; never for a time.

A number of seconds in a test is the longest duration on a quiet machine, or the promised one. Nobody waits so short:
each deadline is that number times `PILOTHOUSE_TEST_PATIENCE`, because a machine that does other work takes several
times as long, and a test's verdict must not depend on its neighbours. With a patience of 1 the numbers hold as they
are written.

    await poll_until(lambda: world.count(), lambda count: count == 3, seconds=5.0)
    async with within(10.0): ...                      # asyncio.timeout, made patient
    await asyncio.wait_for(process.wait(), patient(10.0))
    call(timeout=runs_out(0.5))                       # the test is about the end of this time

No wait is longer than the rest of the test's own time limit (`tests.endings`). A wait that fails therefore ends with
its own message, before the alarm ends the test.
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
# The first looks come soon after each other, and later ones cost a busy machine less: most looks are calls of the API,
# which take 2 to 4 ms of a core. Dear ones take half of the time at most: after each comes a pause as long as it took.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _GROWTH = 0.01, 0.1, 1.5
_LONGEST_REST_SECONDS = 0.5
# A deadline that is taken after the limit has passed still lets a test put away what it began.
_SHORTEST_DEADLINE_SECONDS = 1.0
_limit = math.inf


def set_limit(seconds: float) -> None:
    """Sets the time that is left for waits from now on; `math.inf` takes the limit away."""
    global _limit
    _limit = time.monotonic() + seconds


def patient(seconds: float) -> float:
    """Returns the deadline, in seconds, for a step that takes so long at most on a quiet machine.

    Virtual time passes as fast on every machine: there it is the number itself. The deadline is at most the rest of
    the test's time limit.
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
    """A block that must end before `patient(seconds)`; TimeoutError."""
    return asyncio.timeout(patient(seconds))


def runs_out(seconds: float) -> float:
    """A time that is meant to run out, so the slowness of a machine does no harm: it is taken as it is."""
    return seconds


class Stopwatch:
    """The seconds since it was made, for events that must not come sooner, or not more often in them.

    How long something takes at most is a deadline instead: a busy machine only makes the time longer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def passed(self) -> float:
        """Seconds, of the loop's time."""
        return self._loop.time() - self._began


async def poll_until(
    look: Callable[[], Awaitable[T]],
    holds: Callable[[T], object] = bool,
    *,
    seconds: float = 20.0,
    what: str = "the condition",
    woken_by: Callable[[], Awaitable[object]] | None = None,
) -> T:
    """Polls until the seen value `holds`, and returns it. Looks again after a pause, or when `woken_by` has returned.

    Raises AssertionError with the last seen value once `patient(seconds)` are over, also if a look does not return.
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
