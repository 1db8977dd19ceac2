"""The burst gate: it accepts all calls of a burst, then serves a few at a time.

gRPC hands calls over one by one, those of a listener shard (`rpc.listener_shards`) in the order of their arrival. If
each were served when it is accepted, a call behind two thousand others would wait until all of them are done.
That takes seconds, whichever caller sent them. Accepting a call without serving it costs a tenth of a
millisecond. So the first few calls of a caller pass, and the gate *holds* the others until gRPC has no more to
hand over. Then the held calls continue, a few at a time, callers in turn. The calls of all other callers pass.

The server cannot ask gRPC how many calls it has. A burst counts as over when the event loop was idle and the gate held
no further call. Each check costs two milliseconds of waiting. So the gate checks once for a number of calls of one
caller, and less often as long as it finds nothing. A caller with a few concurrent calls stays as fast as before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import too_many_calls

# The number of calls of one caller that pass before the gate checks for more behind them. It doubles, up to the second
# number, each time that the check finds no burst.
_FEW, _MANY = 16, 64
# The number of anonymous calls that pass in `_FORGOTTEN_SECONDS` together: a caller with many addresses has
# few calls of each.
_ANONYMOUS = 64
# A caller with fewer calls than `_FEW` in this time is never held.
_FORGOTTEN_SECONDS = 0.25
# The time without a new held call after which gRPC counts as having no more; the second time applies during a burst,
# because the thread that hands calls over may be waiting for a processor. A check that is late by more than the third
# time shows that the event loop was busy and may not have accepted every call. Then `_LOOKS` checks in a row must find
# no new call. All checks together take at most `_MOST_LOOKS_SECONDS`; in a burst that does not end, this limit falls to
# `_LEAST_LOOKS_SECONDS`.
_CALM_SECONDS, _CALM_AFTER_MANY_SECONDS, _PUNCTUAL_SECONDS = 0.002, 0.004, 0.0005
_LOOKS = 3
_MOST_LOOKS_SECONDS, _LEAST_LOOKS_SECONDS = 2.0, 0.01
# Up to `_NO_BURST` held calls are no burst. They all continue in the next iterations of the event loop, `_A_TURN` in
# each.
_NO_BURST, _A_TURN = 32, 1
# The number of calls of a burst that are served concurrently. A call that takes longer than `_AT_WORK_SECONDS` is
# waiting for something, so it no longer counts.
_AT_WORK, _AT_WORK_SECONDS = 2, 0.01
# The same number while other callers make calls. After each call of a burst, the event loop is left to the other
# callers for as long as that call took, but at most for the second number. If the next call of the burst began
# immediately, the other calls would wait for a call of the burst at each of their steps.
_AT_WORK_BESIDE_OTHERS, _MOST_REST_SECONDS = 1, 0.004
# The number of calls that the gate releases between two checks for newly arrived calls. It does not check while
# `_LOOKED_FOR` or fewer are held: any busy caller has that many in progress, and each check leaves the process idle.
_BETWEEN_LOOKS, _LOOKED_FOR = 16, 128
# The most held calls: of all callers, of all anonymous callers, and of one caller. A held call takes some 25 KB.
# Anonymous callers can have any number of addresses, so they get half of all places. If all places are taken, the
# caller with the most held calls loses its newest one to a caller with fewer.
_MOST, _MOST_OF_ANONYMOUS, _MOST_OF_ONE = 5_000, 2_500, 2_500


# How long expensive calls, such as streams, wait until the rest of their burst has been accepted.
_TAKEN_IN_SECONDS = 1.0


class _Held:
    """A held call, and the time since which it is held.

    `released` becomes True when the call may continue, and False when it is refused.
    """

    __slots__ = ("released", "since", "who")

    def __init__(self, who: object) -> None:
        loop = asyncio.get_running_loop()
        self.who = who
        self.since = loop.time()
        self.released: asyncio.Future[bool] = loop.create_future()


class _Caller:
    """The calls of one caller.

    It counts how many passed since the last check and how many may pass, and has the held ones.
    """

    __slots__ = ("has_turn", "held", "is_anonymous", "may", "most_held", "none_held", "passed")

    def __init__(self, is_anonymous: bool) -> None:
        self.is_anonymous = is_anonymous
        self.passed = 0
        self.may = _FEW
        self.most_held = 0
        # Includes cancelled calls until `_first` or `_make_room` removes them.
        self.held: deque[_Held] = deque()
        self.has_turn = False
        # Set once no call is held; None if no call waits for that.
        self.none_held: asyncio.Event | None = None

    def all_are_taken_in(self) -> None:
        """Wakes the calls that wait in `all_taken_in`."""
        if self.none_held is not None:
            self.none_held.set()
            self.none_held = None


class BurstGate:
    """The burst gate with its held calls, each for about `wait_seconds` at most.

    It calls `on_refused` at each refusal.
    """

    def __init__(self, wait_seconds: float, on_refused: Callable[[], None] = lambda: None) -> None:
        self.waiting = 0
        self._anonymous_waiting = 0
        # The number of calls that were ever held.
        self._came = 0
        self._wait_seconds = wait_seconds
        self._on_refused = on_refused
        self._callers: dict[Hashable, _Caller] = {}
        self._forget_at = 0.0
        # The number of anonymous calls that have passed since the callers were last forgotten.
        self._anonymous = 0
        # Callers with held calls, in the order of their turns.
        self._turns: deque[_Caller] = deque()
        # Calls of a burst that are being served, the oldest first, and the time at which each stops counting.
        self._places: dict[object, float] = {}
        # Until this time no call of a burst continues while others make calls.
        self._rests_until = 0.0
        self._until_look = 0
        # How many of the held calls are the rest of a burst.
        self._of_burst = 0
        # Either a check or a release of calls is scheduled, never both.
        self._next: asyncio.Handle | None = None
        self._looking = False
        self._patience_seconds = _MOST_LOOKS_SECONDS
        self._over = False

    def passes(self, caller: Hashable) -> bool:
        """Returns whether a call of this caller may continue immediately.

        `caller` is a user's id or an anonymous address. If the call may not continue, `turn` must be awaited.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at:
            self._forget_at = now + _FORGOTTEN_SECONDS
            self._anonymous = 0
            self._callers = {key: each for key, each in self._callers.items() if each.held}
        found = self._callers.get(caller)
        if found is None:
            found = self._callers[caller] = _Caller(isinstance(caller, str))
        if found.held or found.passed >= found.may:
            return self._over
        if found.is_anonymous:
            if self._anonymous >= _ANONYMOUS:
                return self._over
            self._anonymous += 1
        found.passed += 1
        return True

    async def turn(self, caller: Hashable, who: object) -> None:
        """Returns when it is the turn of a call that does not pass.

        The caller must then call `leave` with the same `who`, also after an error. Until then the call counts as one
        that is being served.

        Raises:
            ResourceExhausted: too many calls are held, or this one was held for too long.
        """
        found = self._callers[caller]
        if len(found.held) >= _MOST_OF_ONE:
            raise self._refused()
        if found.is_anonymous and self._anonymous_waiting >= _MOST_OF_ANONYMOUS:
            self._make_room(found, [each for each in self._turns if each.is_anonymous])
        elif self.waiting >= _MOST:
            self._make_room(found, self._turns)
        call = _Held(who)
        if not found.has_turn:
            found.has_turn = True
            self._turns.append(found)
        found.held.append(call)
        found.most_held = max(found.most_held, len(found.held))
        self.waiting += 1
        self._anonymous_waiting += found.is_anonymous
        self._came += 1
        if self._next is None:
            self._look_for_more()
        try:
            if not await call.released:
                raise self._refused()
        finally:
            self.waiting -= 1
            self._anonymous_waiting -= found.is_anonymous

    async def all_taken_in(self, caller: Hashable) -> None:
        """Returns when no call of this caller is held, or after a second.

        The limit is for callers that always have calls in progress.
        """
        found = self._callers.get(caller)
        if found is None or not found.held or self._over:
            return
        if found.none_held is None:
            found.none_held = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_IN_SECONDS):
                await found.none_held.wait()

    def _make_room(self, newcomer: _Caller, among: Collection[_Caller]) -> None:
        """Refuses the newest call of the caller with the most held calls.

        Raises ResourceExhausted if that is the newcomer.
        """
        while True:
            most = max(among, key=lambda each: len(each.held), default=newcomer)
            # A call that is already done, for example cancelled, has given its place up.
            while most.held and most.held[-1].released.done():
                most.held.pop()
            if len(most.held) > len(newcomer.held) + 1:
                most.held.pop().released.set_result(False)
                return
            if all(len(each.held) <= len(newcomer.held) + 1 for each in among):
                raise self._refused(of_caller=False)

    def leave(self, who: object) -> None:
        """Gives back the place of a call.

        The call has ended, or waits for something outside this process.
        """
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
        """Schedules `_go_on` for the next iteration of the event loop, or after `seconds`."""
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
        # The rest of a burst belongs to the burst until its end. A few calls that arrive during that time do not:
        # otherwise a caller that sends at its usual rate after a burst would be held for ever.
        if self.waiting > _NO_BURST:
            self._of_burst = self.waiting
        paced = self._of_burst > 0 and not self._over
        # True if every recent caller has held calls. If `_forget_at` is long past, no call has come since, and the
        # remembered callers are not recent.
        alone = len(self._callers) <= len(self._turns) or now >= self._forget_at + _FORGOTTEN_SECONDS
        for _ in range(_A_TURN):
            if not self._turns:
                self._of_burst = 0
                return
            if paced and self._must_wait(now, alone):
                return
            call = self._first()
            if call is None or call.released.done():
                # The call was cancelled or refused.
                continue
            call.released.set_result(self._over or now - call.since < self._wait_seconds)
            if paced:
                self._of_burst -= 1
                self._until_look -= 1
                self._places[call.who] = now + _AT_WORK_SECONDS
        self._soon()

    def _must_wait(self, now: float, alone: bool) -> bool:
        """Returns whether no call of a burst may continue now.

        If so, `_go_on` is called when one may.
        """
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
        """Returns the call whose turn it is; None if its caller has no held call left."""
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
