"""Work on the event loop beside others: a long loop gives it away every few milliseconds, so that others run, and what
many do now and then they do in the same turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
_SHARE_SECONDS = 0.004
_TICK_SECONDS = 0.25


def run(work: Coroutine[Any, Any, T], name: str) -> T:
    """Runs `work` to its end as `asyncio.run` does, on the loop of that name: "uvloop" or "asyncio"."""
    if name == "asyncio":
        return asyncio.run(work)
    # Imported where it is used: other verbs of the command, and the supervisor of several servers, do without.
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class Share:
    """A few milliseconds of the event loop."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def used(self) -> None:
        """Gives the loop to others once the share is used up, and begins a new one."""
        if perf_counter() - self._since >= _SHARE_SECONDS:
            await asyncio.sleep(0)
            self._since = perf_counter()


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items one by one, and to the event loop before an item once its share of time is used up."""
    share = Share()
    for item in items:
        await share.used()
        yield item


def tick_before(time: float) -> float:
    """Returns the last moment, `time` included, of those that all share: four a second, by the loop's clock.

    Hundreds of streams that each say something now and then cost half as much where they say it together.
    """
    return time // _TICK_SECONDS * _TICK_SECONDS
