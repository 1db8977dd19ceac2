"""Token buckets: a burst at first, then a number a second.

A bucket stands alone, or there is one for each key.

`TokenBucket` counts. It may go below zero, so that a caller can take a token now and sleep until the debt is paid.
`TokenBuckets` has one for each key, and forgets the keys that were used least recently.
`KeyedRate` lets callers wait for their token in order. It paces three things that cost their caller nothing:

    refusals       Each costs the server two milliseconds: an error, a record or count, a response. A client that has
                   thousands of calls open and replaces each refused one would otherwise delay all other callers.
    stream opens   Each takes five milliseconds: its request is checked, its first state is read and sent, and two audit
                   records are written. A user that opens a hundred watches a second would otherwise occupy the event
                   loop.
    cluster calls  Each takes half a millisecond. Clients that begin together also call together later, so a hundred of
                   them would delay all other callers by a twentieth of a second, each second. Spaced out they delay
                   nobody.

A call that waits for a refusal holds no seat, only its HTTP/2 stream, and a connection has few of those. A stream that
waits to be opened holds its seat.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

# The number of keys that are remembered: a bucket takes some 200 bytes.
_MOST_KEYS: Final = 20_000
# After `close`, waiting callers continue this far apart: all together would delay the callers that are being notified
# of the shutdown.
_CLOSING_SECONDS: Final = 0.002
# A caller whose wait would exceed the longest one waits for a random part of the longest, at least this part. If all
# such callers continued together, they would delay others.
_LEAST_OF_LONGEST: Final = 0.5
# Sums of floats are inexact: a token that is due now may be short of one by this much.
_ROUNDING: Final = 1e-9

_Turn = asyncio.Future[None]


class TokenBucket:
    """At most `burst` tokens; `per_second` are added each second. It begins full."""

    __slots__ = ("_clock", "_tokens", "_updated", "burst", "per_second")

    def __init__(
        self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = float(burst)
        self._clock = clock
        self._tokens = self.burst
        self._updated = clock()

    @property
    def tokens(self) -> float:
        """The current number of tokens; negative after more were taken than there were."""
        return min(self.burst, self._tokens + (self._clock() - self._updated) * self.per_second)

    def seconds_until_one(self) -> float:
        """Returns the seconds until there is a token; 0.0 if there is one."""
        missing = 1.0 - self.tokens
        return 0.0 if missing <= _ROUNDING else missing / self.per_second

    def try_take(self) -> bool:
        """Takes a token if there is one; returns whether it did."""
        if self.tokens < 1.0 - _ROUNDING:
            return False
        self.take()
        return True

    def reserve(self) -> float:
        """Takes a token even if there is none; returns the seconds until it may be used."""
        seconds = self.seconds_until_one()
        self.take()
        return seconds

    def take(self) -> None:
        """Takes a token even if there is none."""
        self._set(self.tokens - 1.0)

    def take_last(self) -> None:
        """Takes a token and drops all others.

        So no burst makes up for time in which the event loop was late.
        """
        self._set(min(self.tokens, 1.0) - 1.0)

    def give_back(self) -> None:
        """Returns a token that was not needed."""
        self._set(self.tokens + 1.0)

    def _set(self, tokens: float) -> None:
        self._tokens, self._updated = tokens, self._clock()


class TokenBuckets:
    """One bucket for each key; beyond `most_keys` the least recently used is dropped."""

    def __init__(
        self,
        per_second: float,
        burst: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = _MOST_KEYS,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._most_keys = most_keys
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """Returns the number of keys that are remembered."""
        return len(self._buckets)

    def of(self, key: Hashable) -> TokenBucket:
        """Returns the bucket of a key."""
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = TokenBucket(self._per_second, self._burst, clock=self._clock)
            if len(self._buckets) > self._most_keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return found


class _Line:
    """The waiting callers of one key, in order; it exists only while a caller waits."""

    __slots__ = ("bucket", "timer", "waiting")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: dict[_Turn, None] = {}


class KeyedRate:
    """Each key has `burst` tokens at first and `per_second` after that.

    Callers without a token wait in order.

    No caller waits longer than `longest_seconds`. A caller whose wait would exceed that waits for a random time
    instead, between half of it and all of it. When a caller is cancelled, its token goes to the next caller of the key,
    and no caller continues before a token is due.
    """

    def __init__(
        self, per_second: float, burst: float, longest_seconds: float, *, most_keys: int = _MOST_KEYS
    ) -> None:
        self._interval = 1 / per_second
        self._longest_seconds = longest_seconds
        self._buckets = TokenBuckets(per_second, burst, clock=_loop_time, most_keys=most_keys)
        self._lines: dict[Hashable, _Line] = {}
        # Callers whose place would be too far back.
        self._late: set[_Turn] = set()
        self._closed = False
        # The number of callers that continued since `close`.
        self._released = 0

    @property
    def keys(self) -> int:
        """The number of keys that are remembered."""
        return len(self._buckets)

    async def acquire(self, key: Hashable) -> None:
        """Returns when it is this caller's turn, or soon after `close`."""
        if self.try_acquire(key):
            return
        if not self._closed:
            await self._wait(key)
        if self._closed:
            self._released += 1
            await asyncio.sleep(self._released * _CLOSING_SECONDS)

    def try_acquire(self, key: Hashable) -> bool:
        """Takes a token if there is one and nobody waits for it; returns whether it did."""
        return key not in self._lines and self._buckets.of(key).try_take()

    def close(self) -> None:
        """Lets all waiting callers continue soon: this server is shutting down."""
        self._closed = True
        for line in self._lines.values():
            for turn in line.waiting:
                _wake(turn)
        for turn in self._late:
            _wake(turn)

    async def _wait(self, key: Hashable) -> None:
        line = self._lines.get(key) or _Line(self._buckets.of(key))
        seconds = line.bucket.seconds_until_one() + len(line.waiting) * self._interval
        if seconds >= self._longest_seconds:
            await self._wait_outside()
            return
        self._lines[key] = line
        turn: _Turn = asyncio.get_running_loop().create_future()
        line.waiting[turn] = None
        if line.timer is None:
            self._set_timer(line)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The caller got its turn and was cancelled in the same iteration of the event loop.
                self._serve_next(line)
            raise
        finally:
            line.waiting.pop(turn, None)
            if not line.waiting and self._lines.get(key) is line:
                del self._lines[key]
                if line.timer is not None:
                    line.timer.cancel()

    async def _wait_outside(self) -> None:
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        seconds = self._longest_seconds * random.uniform(_LEAST_OF_LONGEST, 1.0)  # noqa: S311 - it is no secret
        timer = loop.call_later(seconds, _wake, turn)
        self._late.add(turn)
        try:
            await turn
        finally:
            timer.cancel()
            self._late.discard(turn)

    def _set_timer(self, line: _Line) -> None:
        seconds = line.bucket.seconds_until_one()
        line.timer = asyncio.get_running_loop().call_later(seconds, self._on_timer, line)

    def _on_timer(self, line: _Line) -> None:
        line.timer = None
        if not self._serve_next(line):
            return
        line.bucket.take_last()
        if line.waiting:
            self._set_timer(line)

    def _serve_next(self, line: _Line) -> bool:
        """Wakes the first caller that still waits; returns whether there was one."""
        # Turns that are done were cancelled; their callers remove them.
        turn = next((each for each in line.waiting if not each.done()), None)
        if turn is None:
            return False
        del line.waiting[turn]
        turn.set_result(None)
        return True


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _wake(turn: _Turn) -> None:
    if not turn.done():
        turn.set_result(None)
