"""The seats of one class of calls, given fairly.

Whoever finds a seat free takes it at once, by a few comparisons. Else the call waits, in a queue of its own *flow*: the
calls of one user, or of one address. A seat that becomes free goes to the flow that has had least (start-time fair
queuing, by the number of seats that a call takes), never to one that holds as many as a flow may: who asks for much
waits for himself. Nobody passes a call that waits for more seats than are free, so wide calls are not starved either.

A wait is bounded, and so are the queues: of a flow, and of all. Where all are full, the flow that has most calls
waiting loses its youngest, unless the newcomer's own flow is that one.

A seat is counted in `in_use` from when it is given until `give_back`. A caller that is cancelled while it waits has
left its queue, or has given the seat back, by the time `take` raises.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from pilothouse_server.errors import ResourceExhausted

# When who is refused may come back.
RETRY_SECONDS = 1.0


def too_many_calls(message: str, of_class: str, *, of_caller: bool = True) -> ResourceExhausted:
    """Returns the error for a call that is refused by the bound of a class: of its caller, or of all together."""
    return ResourceExhausted(
        message,
        reason="TOO_MANY_CALLS",
        metadata={"class": of_class, "limit_of": "caller" if of_caller else "server"},
        retry_after_seconds=RETRY_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many seats a class has, and how many of them a flow may hold; how many calls may wait, of all and of a flow,
    and how many seconds each.
    """

    seats: int
    seats_per_flow: int
    waiting: int
    waiting_per_flow: int
    wait_seconds: float


class _Waiter:
    """A call that waits for `width` seats. `given` is set in the same step that counts them as in use."""

    __slots__ = ("answer", "flow", "given", "width")

    def __init__(self, flow: _Flow, width: int) -> None:
        self.flow = flow
        self.width = width
        self.given = False
        # A result when the seats are given, an exception when it may wait no longer.
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Flow:
    """The calls of one who asks. `served` is the virtual time up to which it has had its share."""

    __slots__ = ("in_use", "key", "queued", "served", "waiting")

    def __init__(self, key: Hashable, served: float) -> None:
        self.key = key
        self.served = served
        self.in_use = 0
        # In the order of their coming; a dict, as they may leave from the middle.
        self.waiting: dict[_Waiter, None] = {}
        # Whether it stands in the heap of those that may have the next seat.
        self.queued = False

    @property
    def first(self) -> _Waiter:
        return next(iter(self.waiting))


class Limiter:
    """The seats of the class `name`; `on_refused` is called with each refusal."""

    def __init__(self, name: str, bounds: Bounds, on_refused: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.bounds = bounds
        self.in_use = 0
        self.waiting = 0
        self._on_refused = on_refused
        self._flows: dict[Hashable, _Flow] = {}
        # (virtual time, a number that decides between equals, flow) of flows whose first waiter their own bound allows.
        self._next: list[tuple[float, int, _Flow]] = []
        self._entries = 0
        self._virtual = 0.0

    @property
    def flows(self) -> int:
        """How many hold a seat or wait for one."""
        return len(self._flows)

    def fitting(self, width: int) -> int:
        """Returns so many seats that a flow may hold them: at least one, `width` if possible."""
        return max(1, min(width, self.bounds.seats_per_flow, self.bounds.seats))

    def take_now(self, key: Hashable, width: int = 1) -> bool:
        """Takes `width` seats, which must be `fitting`, if that keeps nobody else waiting; returns whether it did."""
        bounds = self.bounds
        if self._next or self.in_use + width > bounds.seats:
            return False
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(key, self._virtual)
        elif flow.waiting or flow.in_use + width > bounds.seats_per_flow:
            return False
        flow.in_use += width
        self.in_use += width
        return True

    async def take(self, key: Hashable, width: int = 1, until: float | None = None) -> None:
        """Takes `width` seats, which must be `fitting`, once it is this call's turn. It waits as long as calls of the
        class may, or until a time of the loop's clock.

        Raises:
            ResourceExhausted: too many wait already, or it waited for too long. Come back later, as RetryInfo says.
        """
        if self.take_now(key, width):
            return
        waiter = self._enqueue(key, width)
        limit = asyncio.timeout(self.bounds.wait_seconds) if until is None else asyncio.timeout_at(until)
        try:
            async with limit:
                await waiter.answer
        except TimeoutError:
            if waiter.given:
                return
            if not limit.expired():
                raise
            raise self._refused(waiter.flow, width) from None
        except BaseException:
            if waiter.given:
                self.give_back(key, width)
            raise
        finally:
            if not waiter.given:
                self._leave(waiter)

    def give_back(self, key: Hashable, width: int = 1) -> None:
        """Gives seats back that were taken; whose turn it is gets them."""
        flow = self._flows[key]
        flow.in_use -= width
        self.in_use -= width
        assert flow.in_use >= 0, "seats are given back that nobody holds"
        if flow.waiting:
            self._queue(flow)
        elif not flow.in_use:
            del self._flows[key]
        if self._next:
            self._dispatch()

    def holds(self, key: Hashable) -> bool:
        """Returns whether a flow has a seat, or waits for one."""
        return key in self._flows

    def check(self, key: Hashable) -> None:
        """Raises ResourceExhausted, as `take` would at once, where as many wait already as a flow may have."""
        flow = self._flows.get(key)
        if flow is not None and flow.waiting and len(flow.waiting) >= self.bounds.waiting_per_flow:
            raise self._refused(flow, 1)

    def _enqueue(self, key: Hashable, width: int) -> _Waiter:
        flow = self._flows.get(key) or _Flow(key, self._virtual)
        if len(flow.waiting) >= self.bounds.waiting_per_flow:
            raise self._refused(flow, width)
        if self.waiting >= self.bounds.waiting:
            self._make_room(flow, width)
        self._flows[key] = flow
        waiter = _Waiter(flow, width)
        flow.waiting[waiter] = None
        self.waiting += 1
        self._queue(flow)
        # Its own bound may have kept the flow out while there was room.
        self._dispatch()
        return waiter

    def _make_room(self, newcomer: _Flow, width: int) -> None:
        most = max(self._flows.values(), key=lambda flow: len(flow.waiting))
        if len(most.waiting) <= len(newcomer.waiting) + 1:
            raise self._refused(newcomer, width)
        youngest = next(reversed(most.waiting))
        if not youngest.answer.done():
            youngest.answer.set_exception(self._refused(most, youngest.width))
            # Looked at, so that asyncio does not complain where its caller goes away now.
            youngest.answer.exception()
        self._leave(youngest)

    def _leave(self, waiter: _Waiter) -> None:
        flow = waiter.flow
        if waiter not in flow.waiting:
            return
        del flow.waiting[waiter]
        self.waiting -= 1
        if flow.waiting:
            # The next of the flow may be one that its bound allows.
            self._queue(flow)
        elif not flow.in_use and self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
        self._dispatch()

    def _queue(self, flow: _Flow) -> None:
        if not flow.queued and flow.in_use + flow.first.width <= self.bounds.seats_per_flow:
            flow.queued = True
            self._entries += 1
            heapq.heappush(self._next, (max(flow.served, self._virtual), self._entries, flow))

    def _dispatch(self) -> None:
        """Gives the free seats to those whose turn it is; leaves in the heap a flow that waits for room, or none."""
        while self._next:
            start, _, flow = self._next[0]
            if not flow.waiting or flow.in_use + flow.first.width > self.bounds.seats_per_flow:
                # Its waiters have left since, or the first has, and the next is wider.
                heapq.heappop(self._next)
                flow.queued = False
                continue
            waiter = flow.first
            if self.in_use + waiter.width > self.bounds.seats:
                return
            heapq.heappop(self._next)
            flow.queued = False
            del flow.waiting[waiter]
            self.waiting -= 1
            if not waiter.answer.done():
                self._give(waiter, start)
            if flow.waiting:
                self._queue(flow)
            elif not flow.in_use:
                del self._flows[flow.key]

    def _give(self, waiter: _Waiter, start: float) -> None:
        flow = waiter.flow
        self._virtual = max(self._virtual, start)
        flow.served = start + waiter.width
        flow.in_use += waiter.width
        self.in_use += waiter.width
        waiter.given = True
        waiter.answer.set_result(None)

    def _refused(self, flow: _Flow, width: int) -> ResourceExhausted:
        self._on_refused()
        bounds = self.bounds
        own = flow.in_use + width > bounds.seats_per_flow or len(flow.waiting) >= bounds.waiting_per_flow
        who = "you have" if own else "this server has"
        message = f"{who} too many {self.name} at once: come back later, with fewer at a time"
        return too_many_calls(message, self.name.replace(" ", "_"), of_caller=own)
