"""What a caller may have so many of in a second: the first ones at once, the others one after the other.

Refusals: a call that is refused before anything is done costs its caller nothing and the server two milliseconds: its
error, its record or count, its answer. Who holds thousands of calls and begins a new one for each that ends would have
them refused as fast as the server can, and everybody else would stand in line with them.

Openings of streams: each has its request checked, its first state read and sent, and two records, which takes five
milliseconds. Who opens and leaves a hundred watches a second would have the event loop for himself.

Calls that go to a cluster, half a millisecond each: clients that begin together come together again, so a hundred of
them would hold up everybody else for a twentieth of a second, each second. One by one they hold up nobody, and have
parted when they come again. Those that are refused there are paced as refusals.

What waits for a refusal holds no seat, only its stream, of which a connection has few; what waits to be opened holds
the seat of one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable

# Users and addresses that are remembered although none of theirs waits.
_MOST_LINES = 1000
# At the end they go on so far apart.
_LET_GO_SECONDS = 0.002
# Who would wait for too long waits for so much of the longest time at least: all at once would keep others waiting.
_LEAST_OF_MOST = 0.5

_Turn = asyncio.Future[None]


class _Line:
    """Those of one user or address who wait, in the order of their coming, and when the next one goes on, by the loop's
    clock, were there no first ones.
    """

    __slots__ = ("due", "timer", "waiting")

    def __init__(self) -> None:
        self.due = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: dict[_Turn, None] = {}


class Paces:
    """Turns of each user, or address where nobody has logged in: `first` at once, and `per_second` after those. Nobody
    waits for longer than `most_seconds`, and who would, for half of them or more, each for another time.

    Who does not wait any more leaves the line, so that no turn is lost, and none comes sooner than it may.
    """

    def __init__(self, per_second: float, first: int, most_seconds: float) -> None:
        self._interval = 1 / per_second
        # Of those whose turns would be due in this time none waits.
        self._ahead_seconds = first / per_second
        self._most_seconds = most_seconds
        self._lines: dict[Hashable, _Line] = {}
        # Who stands in no line, as it is too long.
        self._late: set[_Turn] = set()
        self._over = False
        # How many went on since the end.
        self._let_go = 0

    async def turn(self, flow: Hashable) -> None:
        """Returns when it is the turn of a call of this user or address; soon after `end`."""
        if self.takes_now(flow):
            return
        if not self._over:
            await self._waits(self._lines[flow])
        if self._over:
            # All in one moment would keep everybody else waiting, who is to be told that this server shuts down.
            self._let_go += 1
            await asyncio.sleep(self._let_go * _LET_GO_SECONDS)

    def takes_now(self, flow: Hashable) -> bool:
        """Takes a turn of this user or address if there is one now; returns whether there was."""
        now = asyncio.get_running_loop().time()
        line = self._lines.get(flow)
        if line is None:
            line = self._new_line(flow, now)
        line.due = max(line.due, now)
        if line.waiting or line.due - self._ahead_seconds > now:
            return False
        line.due += self._interval
        return True

    def end(self) -> None:
        """Lets all go on, in a short time: this server is shutting down."""
        self._over = True
        for line in self._lines.values():
            for turn in line.waiting:
                _goes_on(turn)
        for turn in self._late:
            _goes_on(turn)

    async def _waits(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        seconds = line.due - self._ahead_seconds - loop.time() + len(line.waiting) * self._interval
        if seconds >= self._most_seconds:
            seconds = self._most_seconds * random.uniform(_LEAST_OF_MOST, 1.0)  # noqa: S311 - it is no secret
            self._late.add(turn)
            timer = loop.call_later(seconds, _goes_on, turn)
            try:
                await turn
            finally:
                timer.cancel()
                self._late.discard(turn)
            return
        line.waiting[turn] = None
        if line.timer is None:
            self._await_next(line)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It was given its turn in the same moment.
                self._give_on(line)
            raise
        finally:
            line.waiting.pop(turn, None)

    def _await_next(self, line: _Line) -> None:
        due = line.due - self._ahead_seconds
        line.timer = asyncio.get_running_loop().call_at(due, self._next, line)

    def _next(self, line: _Line) -> None:
        """Has the next one go on who still waits."""
        line.timer = None
        if not self._give_on(line):
            return
        # Where the loop was late, those behind are not to make up for it.
        now = asyncio.get_running_loop().time()
        line.due = max(line.due, now + self._ahead_seconds) + self._interval
        if line.waiting:
            self._await_next(line)

    def _give_on(self, line: _Line) -> bool:
        """Gives a turn to the first who still waits; returns whether there was one."""
        # Those that are done were taken back, and leave by themselves.
        turn = next((each for each in line.waiting if not each.done()), None)
        if turn is None:
            return False
        del line.waiting[turn]
        turn.set_result(None)
        return True

    def _new_line(self, flow: Hashable, now: float) -> _Line:
        if len(self._lines) >= _MOST_LINES:
            self._lines = {key: line for key, line in self._lines.items() if line.waiting or line.due > now}
        made = self._lines[flow] = _Line()
        return made


def _goes_on(turn: _Turn) -> None:
    if not turn.done():
        turn.set_result(None)
