"""A few places, and a queue before them that nobody can fill for the others.

Who waits is served in turn by *who* it is, an address or an account, not by when it came: one that sends a thousand
waits behind its own. Those who are known (a device or an address that logged in before) and strangers have every other
place each, while both wait, and strangers never have the last one: what they make the server hash takes one processor
less than there are places. The queue is bounded for each and in all. Where all of it is full and somebody comes who
waits less often than another, the newest of that other is refused instead; so is a stranger's where somebody comes who
is known, while those have less than half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from pilothouse_server.errors import ResourceExhausted

_Waiting = asyncio.Future[None]
_Line = OrderedDict[str, deque[_Waiting]]


class HashQueue:
    """`places` at once; `longest` wait in all, `longest_of_one` of each."""

    def __init__(self, places: int, *, longest: int, longest_of_one: int) -> None:
        self._free = places
        self._most_strangers = max(1, places - 1)
        self._longest = longest
        self._longest_of_one = longest_of_one
        self._strangers: _Line = OrderedDict()
        self._known: _Line = OrderedDict()
        self._waiting = 0
        self._placed_strangers = 0
        self._known_next = True

    @contextlib.asynccontextmanager
    async def place(self, who: str, *, known: bool = False) -> AsyncIterator[None]:
        """Waits for a place, and keeps it.

        Raises:
            ResourceExhausted: LOGIN_BUSY, too many wait already.
        """
        line = self._known if known else self._strangers
        if self._free and not line and (known or self._placed_strangers < self._most_strangers):
            self._enter(line)
        else:
            await self._wait(line, who)
        try:
            yield
        finally:
            self._leave(line)

    async def _wait(self, line: _Line, who: str) -> None:
        self._make_room(line, len(line.get(who, ())))
        waiting: _Waiting = asyncio.get_running_loop().create_future()
        line.setdefault(who, deque()).append(waiting)
        self._waiting += 1
        try:
            await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                # The place was given in the moment in which its taker was cancelled.
                self._leave(line)
            elif waiting in line.get(who, ()):
                self._remove(line, who, waiting)
            raise

    def _make_room(self, newcomers: _Line, own: int) -> None:
        if own >= self._longest_of_one:
            raise login_busy()
        if self._waiting < self._longest:
            return
        # From however many addresses strangers come, they leave half of the queue to those who are known.
        known = 2 * sum(map(len, self._known.values()))
        displaces = newcomers is self._known and known < self._longest
        among_strangers = displaces or (newcomers is self._strangers and known <= self._longest)
        lines = (self._strangers,) if among_strangers else (self._strangers, self._known)
        # Of several who have as many, the one whose turn is last.
        line, who = max(
            ((line, who) for line in lines for who in reversed(line)), key=lambda each: len(each[0][each[1]])
        )
        if not displaces and len(line[who]) <= own + 1:
            raise login_busy()
        newest = line[who][-1]
        self._remove(line, who, newest)
        newest.set_exception(login_busy())

    def _enter(self, line: _Line) -> None:
        self._free -= 1
        self._placed_strangers += line is self._strangers

    def _leave(self, line: _Line) -> None:
        self._free += 1
        self._placed_strangers -= line is self._strangers
        while self._free and (line := self._next_line()):
            who, waiting = next(iter(line.items()))
            first = waiting[0]
            self._remove(line, who, first)
            if who in line:
                line.move_to_end(who)
            if not first.done():
                self._enter(line)
                first.set_result(None)

    def _next_line(self) -> _Line:
        """Those of whom one has the next place; empty where nobody may have it."""
        if self._placed_strangers >= self._most_strangers or not self._strangers:
            return self._known
        if not self._known:
            return self._strangers
        self._known_next = not self._known_next
        return self._strangers if self._known_next else self._known

    def _remove(self, line: _Line, who: str, waiting: _Waiting) -> None:
        line[who].remove(waiting)
        if not line[who]:
            del line[who]
        self._waiting -= 1


def login_busy() -> ResourceExhausted:
    """The error for an attempt that finds too many others waiting."""
    return ResourceExhausted(
        "too many log-ins at once, try again", reason="LOGIN_BUSY", retry_after_seconds=1.0
    )
