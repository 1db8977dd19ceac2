"""The time of the simulated cluster.

All code that waits or records a time uses a `Clock`, so that one factor makes a whole cluster run faster than the wall
clock: with `speed=20` a back-off of ten seconds takes half a second of real time, and all times stored in objects agree
with it. Simulated time starts at the real time of construction and follows the clock of the event loop in which it was
created. So it never jumps when the system time changes, and timestamps agree with sleeps.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Simulated time. `speed` (> 0) is the number of simulated seconds per real second.

    `ahead_seconds` is how far the clock is ahead of the true time; negative means behind.
    """

    def __init__(self, speed: float = 1.0, *, ahead_seconds: float = 0.0) -> None:
        if speed <= 0:
            raise ValueError(f"the speed of a clock must be above zero, not {speed}")
        self.speed = speed
        self._origin = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
        try:
            self._monotonic = asyncio.get_running_loop().time
        except RuntimeError:
            # Created before its loop runs; loops use this clock unless a test replaces it.
            self._monotonic = time.monotonic
        self._started = self._monotonic()

    def now(self) -> datetime:
        """Returns the simulated time, with time zone UTC."""
        return self._origin + timedelta(seconds=self.elapsed())

    def elapsed(self) -> float:
        """Returns the simulated seconds since this clock was created; never decreases."""
        return (self._monotonic() - self._started) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Waits for this number of simulated seconds."""
        await asyncio.sleep(max(0.0, seconds) / self.speed)

    async def wait_for(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Waits for `event`, at most `seconds` simulated seconds (None: no limit). Returns whether it was set."""
        if seconds is None:
            await event.wait()
            return True
        try:
            async with asyncio.timeout(max(0.0, seconds) / self.speed):
                await event.wait()
        except TimeoutError:
            return False
        return True


def format_time(moment: datetime) -> str:
    """Formats a time as RFC 3339 in UTC with whole seconds, like all Kubernetes metadata times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """Formats a time as RFC 3339 in UTC with exactly six decimals of the second, like Kubernetes' MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Returns the time of an RFC 3339 text as stored in objects. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without zone: {text}")
    return moment.astimezone(UTC)
