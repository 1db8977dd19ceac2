"""Work on the event loop beside others: a long loop gives it away every millisecond or two, so that others run, and
what many do now and then they do in the same turn.

A call that is answered at once needs a dozen turns of the loop. So of all long loops together one goes on in each turn:
were it each of them, a call beside ten would wait for ten shares in every one of its turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_SHARE_SECONDS = 0.0015
_TICK_SECONDS = 0.25


def run(work: Coroutine[Any, Any, T], name: str) -> T:
    """Runs `work` to its end as `asyncio.run` does, on the loop of that name: "uvloop" or "asyncio"."""
    if name == "asyncio":
        return asyncio.run(work)
    # Imported where it is used: other verbs of the command, and the supervisor of several servers, do without.
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class _Turns:
    """Those of one loop whose share is used up: one of them goes on in each turn, who has waited longest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def come(self) -> None:
        """Returns when it is the caller's turn."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._go_on)
        await turn

    def _go_on(self) -> None:
        # Who was cancelled meanwhile has no turn.
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if self._waiting:
            self._loop.call_soon(self._go_on)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns_of_this_loop() -> _Turns:
    loop = asyncio.get_running_loop()
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = _Turns(loop)
    return found


class Share:
    """A millisecond or two of the event loop."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def used(self) -> None:
        """Gives the loop to others once the share is used up, and begins a new one."""
        if perf_counter() - self._since >= _SHARE_SECONDS:
            await _turns_of_this_loop().come()
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
