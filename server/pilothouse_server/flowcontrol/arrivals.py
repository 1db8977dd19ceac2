"""Bursts of calls: all are taken in first, then served a few at a time.

gRPC hands calls over one by one, those of a listener shard (`rpc.lines`) in the order of their arrival. If
each were served as it is taken in, a call behind two thousand others would wait until all those are done.
That takes seconds, whichever caller sent them. To take a call in and do nothing costs a tenth of a
millisecond. So a caller with many calls passes with the first few, and the others are *held* here until gRPC
has no more to hand over. Then they continue, a few at a time, callers in turn, while the calls of all others
pass.

The server cannot ask gRPC how many calls it has. A burst counts as over when the event loop had time and no more calls
were held. To look costs two milliseconds of waiting, so it is done once for so many calls of a caller, and less often
the longer it finds nothing. A caller with a few concurrent calls stays as fast as before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import too_many_calls

# So many of a caller pass before it is looked whether more are behind them; where nothing was found, more and more.
_FEW, _MANY = 16, 64
# The number of anonymous calls that pass in `_FORGOTTEN_SECONDS` together: a caller with many addresses has
# few calls of each.
_STRANGERS = 64
# A caller with fewer calls than `_FEW` in this time is never held.
_FORGOTTEN_SECONDS = 0.25
# After so long without a call gRPC has none, and of a burst after that: the thread that hands calls over may wait for
# a processor. A late event loop was busy, and may not have taken one in: then the wait is as many looks, and as long.
_CALM_SECONDS, _CALM_AFTER_MANY_SECONDS, _PUNCTUAL_SECONDS = 0.002, 0.004, 0.0005
_LOOKS = 3
_MOST_LOOKS_SECONDS, _LEAST_LOOKS_SECONDS = 2.0, 0.01
# So few are no burst. They all continue in the next turns of the loop, so many in each.
_NO_BURST, _A_TURN = 32, 1
# The number of calls of a burst that are worked on concurrently. A call that takes longer is waiting for
# something, and makes room.
_AT_WORK, _AT_WORK_SECONDS = 2, 0.01
# And while others make calls. Then the others get the loop for as long as the last one took, at most so long: if each
# began as soon as one has ended, others would wait for one of them at each step of their own.
_AT_WORK_BESIDE_OTHERS, _MOST_REST_SECONDS = 1, 0.004
# The gate looks for newly arrived calls after so many. It does not look while so few are held: any busy
# caller has that many in progress, and each look leaves the process idle.
_BETWEEN_LOOKS, _LOOKED_FOR = 16, 128
# A call that is held takes some 25 KB. Anonymous callers can have any number of addresses, so they get half
# of all places. If all places are taken, the caller with the most held calls loses its newest one to a caller
# with fewer.
_MOST, _MOST_OF_STRANGERS, _MOST_OF_ONE = 5_000, 2_500, 2_500


# So long what is much work waits for the rest of its burst to be taken in.
_TAKEN_IN_SECONDS = 1.0


class _Held:
    """A held call: its caller and the time since when; `goes_on` returns whether it may continue, or has
    waited for too long.
    """

    __slots__ = ("goes_on", "since", "who")

    def __init__(self, who: object) -> None:
        loop = asyncio.get_running_loop()
        self.who = who
        self.since = loop.time()
        self.goes_on: asyncio.Future[bool] = loop.create_future()


class _Caller:
    """Calls of one caller: how many passed since it was looked, how many may, and those that are held."""

    __slots__ = ("has_turn", "held", "is_stranger", "may", "most_held", "none_held", "passed")

    def __init__(self, is_stranger: bool) -> None:
        self.is_stranger = is_stranger
        self.passed = 0
        self.may = _FEW
        self.most_held = 0
        # Also those that nobody waits for any more, until they are come upon.
        self.held: deque[_Held] = deque()
        self.has_turn = False
        # Set once none is held; None where nobody waits for that.
        self.none_held: asyncio.Event | None = None

    def all_are_taken_in(self) -> None:
        """Releases the waiting calls once none is held."""
        if self.none_held is not None:
            self.none_held.set()
            self.none_held = None


class Arrivals:
    """The calls that have arrived and are held; each for about `wait_seconds` at most. `on_refused` is called with each
    refusal.
    """

    def __init__(self, wait_seconds: float, on_refused: Callable[[], None] = lambda: None) -> None:
        self.waiting = 0
        self._strangers_waiting = 0
        # How many were ever held.
        self._came = 0
        self._wait_seconds = wait_seconds
        self._on_refused = on_refused
        self._callers: dict[Hashable, _Caller] = {}
        self._forget_at = 0.0
        # The number of anonymous calls that have passed since the callers were last forgotten.
        self._strangers = 0
        # Of whom calls are held, in the order of their turns.
        self._turns: deque[_Caller] = deque()
        # Calls of a burst that are worked on, the oldest first, and when each has no place any more.
        self._places: dict[object, float] = {}
        # Until this time no call of a burst continues while others make calls.
        self._rests_until = 0.0
        self._until_look = 0
        # How many of those that are held are the rest of a burst.
        self._of_burst = 0
        # One thing is scheduled at a time: a look, or the release of some calls.
        self._next: asyncio.Handle | None = None
        self._looking = False
        self._patience_seconds = _MOST_LOOKS_SECONDS
        self._over = False

    def passes(self, caller: Hashable) -> bool:
        """Returns whether a call of this caller, a user's id or an anonymous address, may continue
        immediately. If it may not, the caller awaits `turn`.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at:
            self._forget_at = now + _FORGOTTEN_SECONDS
            self._strangers = 0
            self._callers = {key: each for key, each in self._callers.items() if each.held}
        found = self._callers.get(caller)
        if found is None:
            found = self._callers[caller] = _Caller(isinstance(caller, str))
        if found.held or found.passed >= found.may:
            return self._over
        if found.is_stranger:
            if self._strangers >= _STRANGERS:
                return self._over
            self._strangers += 1
        found.passed += 1
        return True

    async def turn(self, caller: Hashable, who: object) -> None:
        """Returns when it is the turn of a call that does not pass. In every case `leave` must be called with the
        same `who`, or it counts as one that waits.

        Raises:
            ResourceExhausted: too many are held, or it was held for too long.
        """
        found = self._callers[caller]
        if len(found.held) >= _MOST_OF_ONE:
            raise self._refused()
        if found.is_stranger and self._strangers_waiting >= _MOST_OF_STRANGERS:
            self._make_room(found, [each for each in self._turns if each.is_stranger])
        elif self.waiting >= _MOST:
            self._make_room(found, self._turns)
        call = _Held(who)
        if not found.has_turn:
            found.has_turn = True
            self._turns.append(found)
        found.held.append(call)
        found.most_held = max(found.most_held, len(found.held))
        self.waiting += 1
        self._strangers_waiting += found.is_stranger
        self._came += 1
        if self._next is None:
            self._look_for_more()
        try:
            if not await call.goes_on:
                raise self._refused()
        finally:
            self.waiting -= 1
            self._strangers_waiting -= found.is_stranger

    async def all_taken_in(self, caller: Hashable) -> None:
        """Returns when no call of this caller is held, or after a second: some always have calls under way."""
        found = self._callers.get(caller)
        if found is None or not found.held or self._over:
            return
        if found.none_held is None:
            found.none_held = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_IN_SECONDS):
                await found.none_held.wait()

    def _make_room(self, newcomer: _Caller, among: Collection[_Caller]) -> None:
        """Refuses the newest call of the caller that holds the most. Raises ResourceExhausted if that is the
        newcomer.
        """
        while True:
            most = max(among, key=lambda each: len(each.held), default=newcomer)
            # One that was taken back has given its place up already.
            while most.held and most.held[-1].goes_on.done():
                most.held.pop()
            if len(most.held) > len(newcomer.held) + 1:
                most.held.pop().goes_on.set_result(False)
                return
            if all(len(each.held) <= len(newcomer.held) + 1 for each in among):
                raise self._refused(of_caller=False)

    def leave(self, who: object) -> None:
        """Gives the place back of a call that has ended, or waits for somebody else than this process."""
        until = self._places.pop(who, None)
        if until is None:
            return
        now = asyncio.get_running_loop().time()
        self._rests_until = now + min(now - (until - _AT_WORK_SECONDS), _MOST_REST_SECONDS)
        if not self._looking:
            self._soon()

    def end(self) -> None:
        """Releases all calls: this server is shutting down."""
        self._over = True
        for each in self._callers.values():
            each.all_are_taken_in()
        self._soon()

    def _look_for_more(self) -> None:
        self._look_later(self._came, 0, asyncio.get_running_loop().time())

    def _look_later(self, came: int, looks: int, since: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + (_CALM_SECONDS if self.waiting <= _NO_BURST else _CALM_AFTER_MANY_SECONDS)
        self._looking = True
        self._next = loop.call_at(due, self._look, came, looks, since, due)

    def _look(self, came: int, looks: int, since: float, due: float) -> None:
        """Releases some calls if gRPC has no more calls to hand over."""
        now, newest = asyncio.get_running_loop().time(), self._came
        looks = looks + 1 if newest == came else 0
        calm = looks >= _LOOKS or (looks and now - due < _PUNCTUAL_SECONDS)
        if not calm and now - since < self._patience_seconds and not self._over:
            self._look_later(newest, looks, since)
            return
        # If the burst never ends, some calls continue anyway, and then more and more.
        self._patience_seconds = (
            _MOST_LOOKS_SECONDS if calm else max(self._patience_seconds / 4, _LEAST_LOOKS_SECONDS)
        )
        self._looking, self._until_look = False, _BETWEEN_LOOKS
        self._go_on()

    def _soon(self, seconds: float = 0.0) -> None:
        """Schedules `_go_on`: in the next turn of the loop, or later if a place has to become free."""
        if self._next is not None:
            self._next.cancel()
        self._looking = False
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(seconds, self._go_on) if seconds else loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Releases the calls that may continue now, callers in turn."""
        self._next = None
        now = asyncio.get_running_loop().time()
        for who in [each for each, until in self._places.items() if until <= now]:
            del self._places[who]
        # The rest of a burst belongs to it until its end. A few calls that arrive in that time do not:
        # otherwise a caller that sends at its usual rate after a burst would be held for ever.
        if self.waiting > _NO_BURST:
            self._of_burst = self.waiting
        paced = self._of_burst > 0 and not self._over
        # The callers of late. If no call came since the last forgetting, the earlier callers no longer count.
        alone = len(self._callers) <= len(self._turns) or now >= self._forget_at + _FORGOTTEN_SECONDS
        for _ in range(_A_TURN):
            if not self._turns:
                self._of_burst = 0
                return
            if paced and self._must_wait(now, alone):
                return
            call = self._first()
            if call is None or call.goes_on.done():
                # Nobody waits for it any more.
                continue
            call.goes_on.set_result(self._over or now - call.since < self._wait_seconds)
            if paced:
                self._of_burst -= 1
                self._until_look -= 1
                self._places[call.who] = now + _AT_WORK_SECONDS
        self._soon()

    def _must_wait(self, now: float, alone: bool) -> bool:
        """Returns whether no call of a burst may continue now; `_go_on` is then called when one may."""
        if len(self._places) >= (_AT_WORK if alone else _AT_WORK_BESIDE_OTHERS):
            self._soon(_AT_WORK_SECONDS)
        elif not alone and now < self._rests_until:
            self._soon(self._rests_until - now)
        elif self._until_look <= 0 and self.waiting > _LOOKED_FOR:
            self._look_for_more()
        else:
            return False
        return True

    def _first(self) -> _Held | None:
        """The call whose turn it is; None where its caller has none left."""
        caller = self._turns.popleft()
        call = caller.held.popleft() if caller.held else None
        if caller.held:
            self._turns.append(caller)
        else:
            caller.has_turn = False
            caller.passed = 0
            caller.all_are_taken_in()
            caller.may = min(2 * caller.may, _MANY) if caller.most_held <= _NO_BURST else _FEW
            caller.most_held = 0
        return call

    def _refused(self, *, of_caller: bool = True) -> ResourceExhausted:
        self._on_refused()
        whose = "from this caller" if of_caller else "to this server"
        message = f"too many concurrent calls {whose}; retry with backoff and lower concurrency"
        return too_many_calls(message, "arrivals", of_caller=of_caller)
