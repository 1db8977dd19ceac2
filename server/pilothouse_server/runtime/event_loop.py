"""Cooperation on the event loop: long work yields so that other tasks run.

Long work yields every millisecond. Periodic work of many objects runs in the same iteration of the event loop
(`tick_before`).

A call that waits for nothing needs a dozen iterations of the event loop. So only one piece of long work continues at a
time. It does not continue after an iteration in which other tasks ran, because they are likely to have more to do: it
waits until an iteration was empty, or for some milliseconds. If long work continued in each iteration, a concurrent
call would wait for a share in every one of its iterations. Long work gets the rest of the loop's time, or a fifth of
the time if there is no rest. After work that ran for longer than a share, the next one waits longer.

An iteration is also empty while a call waits for the database, and a share would then delay the call's response.
So the lowest class (a wide page, a large request) waits until nothing has run for two milliseconds, because most
statements take less. It also runs after other long work. If there is no such time, it gets a fifth of the time.
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
# An iteration with less processor time than this counts as empty.
_EMPTY_SECONDS = 0.00015
# The longest wait of long work for an empty iteration, and of the lowest class for its turn, in multiples of the
# previous share.
_PATIENCE = 4.0
# Most calls that wait for the database get their response within this time, and continue.
_QUIET_SECONDS = 0.002
_NAP_SECONDS = 0.001
# Longer measured shares count as this long: the machine likely caused the rest.
_LONGEST_SECONDS = 0.02
_TICK_SECONDS = 0.25


def run(work: Coroutine[Any, Any, T], name: str) -> T:
    """Runs `work` to its end as `asyncio.run` does.

    It uses the event loop named `name`: "uvloop" or "asyncio".
    """
    if name == "asyncio":
        return asyncio.run(work)
    # Imported here because other commands, and the supervisor of several servers, do not need it.
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class _Turns:
    """The long work of one event loop that has used up its share.

    One piece continues at a time, the oldest first. The work of other tasks is measured in processor time, so that an
    iteration does not count as busy only because the machine gives the server little time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        # The waiting work of the lowest class; since when its first piece waits; and when other tasks were last busy.
        self._last: deque[asyncio.Future[None]] = deque()
        self._last_since = self._busy_at = 0.0
        self._nap: asyncio.TimerHandle | None = None
        self._looking = False
        # The time of the last share, the time of the last check whether the loop is free, and the length of that share.
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
            # Checking in each iteration would take a core from the database.
            self._nap = self._loop.call_later(_NAP_SECONDS, self._look)

    def _go_on(self, line: deque[asyncio.Future[None]]) -> None:
        # `_goes_on` and `_went_on` run before and after the work that continues, to measure how long it runs.
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
    """Returns when it is the caller's turn to do work that cannot be cut into steps.

    The work takes milliseconds. With `last`, the turn comes after all other work.
    """
    await _turns_of_this_loop().come(last=last)


async def others_first() -> None:
    """Returns when every task that is ready has run once.

    It is for a caller that holds a connection or locks between two steps of milliseconds. Unlike `Share`, it does not
    wait in a queue.
    """
    await asyncio.sleep(0)


class Share:
    """A share of the event loop's time, of almost a millisecond.

    With `last` it is for work of the lowest class.
    """

    def __init__(self, *, last: bool = False) -> None:
        self._since = perf_counter()
        self._last = last

    async def used(self) -> None:
        """Lets other tasks run if the share is used up, and then begins a new share."""
        if perf_counter() - self._since >= _SHARE_SECONDS:
            await _turns_of_this_loop().come(last=self._last)
            self._since = perf_counter()


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items one by one, and lets other tasks run in between.

    It does so before an item, if its share of time is used up.
    """
    share = Share()
    for item in items:
        await share.used()
        yield item


def tick_before(time: float) -> float:
    """Returns the last common tick at or before `time`.

    There are four ticks a second, by the event loop's clock. Hundreds of periodic streams cost half as much if they
    send at the same moments.
    """
    return time // _TICK_SECONDS * _TICK_SECONDS
