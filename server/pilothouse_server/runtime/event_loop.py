"""Cooperation on the event loop: a long loop yields every millisecond, so that others run, and periodic work
of many objects runs in the same turn.

A call that is answered without waiting needs a dozen turns of the loop. So of all long loops together one continues
at a time, and not after a turn in which others had something to do, for they are likely to have more: it waits until
a turn was empty, or for some milliseconds. If one continued in each turn, a call next to long work would wait for a
share in every one of its turns. The long loops get the rest of the loop's time, or a fifth of it if there is no rest:
after a loop that ran for longer than a share, the next one waits longer.

A turn is empty as well while a call waits for the database, and a share would be in the way of each answer.
So the lowest class (a wide page, a large request) waits until nothing has run for two milliseconds, as most
statements take less. It goes after other long loops, too; where there is no such time, it has a fifth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from time import perf_counter, thread_time
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_SHARE_SECONDS = 0.00075
# A turn in which nobody had anything to do takes a fraction of it.
_EMPTY_SECONDS = 0.00015
# So many times as long as the share before it long loops wait for an empty turn, or to be the last.
_PATIENCE = 4.0
# A call that waits for the database gets its answer within so long, and continues.
_QUIET_SECONDS = 0.002
_NAP_SECONDS = 0.001
# A longer time was likely caused by the machine.
_LONGEST_SECONDS = 0.02
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
    """The work of one loop whose share is used up: one of them continues at a time, the longest waiting
    first.

    The work of others is measured in processor time: a machine that gives the server little makes no turn
    busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        # Those that go last; since when the first of them waits; and when it was last seen that others did something.
        self._last: deque[asyncio.Future[None]] = deque()
        self._last_since = self._busy_at = 0.0
        self._nap: asyncio.TimerHandle | None = None
        self._looking = False
        # When somebody last had a share, when it was last looked whether others leave the loop free, and how long that
        # share was.
        self._since = self._looked = 0.0
        self._held_seconds = _SHARE_SECONDS

    async def come(self, *, last: bool = False) -> None:
        """Returns when it is the caller's turn."""
        turn = self._loop.create_future()
        if last:
            if not self._last:
                self._last_since = perf_counter()
            self._last.append(turn)
        else:
            self._waiting.append(turn)
        if not self._looking:
            self._looking = True
            self._begin_to_look()
        elif self._nap is not None and not last:
            self._nap.cancel()
            self._nap = None
            self._loop.call_soon(self._look)
        await turn

    def _begin_to_look(self) -> None:
        self._since = self._looked = thread_time()
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._nap = None
        now, clock = thread_time(), perf_counter()
        was_empty = now - self._looked < _EMPTY_SECONDS
        self._looked = now
        if not was_empty:
            self._busy_at = clock
        patience = _PATIENCE * self._held_seconds
        if not (was_empty or now - self._since >= patience):
            self._loop.call_soon(self._look)
        elif self._last and clock - self._last_since >= patience:
            self._last_since = clock + _SHARE_SECONDS
            self._go_on(self._last)
        elif self._waiting:
            self._go_on(self._waiting)
        elif clock - self._busy_at >= _QUIET_SECONDS:
            self._last_since = clock + _SHARE_SECONDS
            self._go_on(self._last)
        else:
            # To look in each turn would take a processor from the database.
            self._nap = self._loop.call_later(_NAP_SECONDS, self._look)

    def _go_on(self, line: deque[asyncio.Future[None]]) -> None:
        # Measured around the one that continues: how long it holds the loop, and the work of others after it.
        self._loop.call_soon(self._goes_on)
        # A task that was cancelled while it waited gets no turn.
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        self._loop.call_soon(self._went_on)

    def _goes_on(self) -> None:
        self._since = thread_time()

    def _went_on(self) -> None:
        self._held_seconds = min(max(_SHARE_SECONDS, thread_time() - self._since), _LONGEST_SECONDS)
        if self._waiting or self._last:
            self._begin_to_look()
        else:
            self._looking = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns_of_this_loop() -> _Turns:
    loop = asyncio.get_running_loop()
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = _Turns(loop)
    return found


async def long_work(*, last: bool = False) -> None:
    """Returns when it is the caller's turn to do something that cannot be cut into steps and takes milliseconds;
    `last`: after all else.
    """
    await _turns_of_this_loop().come(last=last)


async def others_first() -> None:
    """Returns when all that is ready has run once.

    For a caller that holds a connection or locks between two steps of milliseconds: it waits in no queue, as
    `Share` does.
    """
    await asyncio.sleep(0)


class Share:
    """Not quite a millisecond of the event loop; `last`: for something that goes after all else."""

    def __init__(self, *, last: bool = False) -> None:
        self._since = perf_counter()
        self._last = last

    async def used(self) -> None:
        """Gives the loop to others once the share is used up, and begins a new one."""
        if perf_counter() - self._since >= _SHARE_SECONDS:
            await _turns_of_this_loop().come(last=self._last)
            self._since = perf_counter()


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items one by one, and to the event loop before an item once its share of time is used up."""
    share = Share()
    for item in items:
        await share.used()
        yield item


def tick_before(time: float) -> float:
    """Returns the last moment, `time` included, of those that all share: four a second, by the loop's clock.

    Hundreds of periodic streams cost half as much if they send at the same moments.
    """
    return time // _TICK_SECONDS * _TICK_SECONDS
