"""A fair queue for the seats of one class: start-time fair queuing (KEP-1040).

A call that finds a seat free takes it immediately, after a few comparisons. Otherwise it waits in the queue of its
*flow*: the calls of one user, or of one address. A seat that becomes free goes to the flow that was served least, by
the number of seats that its calls took, but never to a flow that already holds as many as a flow may. So a flow with
many calls waits for itself. No call overtakes one that waits for more seats than are free, so wide calls are not
starved either.

The time of a wait is bounded, and so are the number of waiting calls of one flow and of all flows. If all places are
taken, the flow with the most waiting calls loses its youngest one, unless the newcomer belongs to that flow.

A seat counts in `in_use` from the moment it is given until `release`. A caller that is cancelled while it waits has
left its queue, or has released its seats, by the time `acquire` raises.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pilothouse_server.errors import PilothouseError, ResourceExhausted

# The delay that a refusal asks its caller to wait before a retry.
RETRY_SECONDS = 1.0


def too_many_calls(message: str, of_class: str, *, of_caller: bool = True) -> ResourceExhausted:
    """Returns the error for a call that exceeds a bound of its class.

    The bound is that of its caller, or that of the server.
    """
    return ResourceExhausted(
        message,
        reason="TOO_MANY_CALLS",
        metadata={"class": of_class, "limit_of": "caller" if of_caller else "server"},
        retry_after_seconds=RETRY_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """The most seats and waiting calls, of a class and of one flow; the longest wait."""

    seats: int
    seats_per_flow: int
    waiting: int
    waiting_per_flow: int
    wait_seconds: float


# Makes the error for a refused call; the argument is True if its own flow's bound refuses it.
Refusal = Callable[[bool], PilothouseError]


class _Waiter:
    """A call that waits for `width` seats.

    `given` is set in the same step that counts the seats as in use.
    """

    __slots__ = ("answer", "flow", "given", "width")

    def __init__(self, flow: _Flow, width: int) -> None:
        self.flow = flow
        self.width = width
        self.given = False
        # Gets a result when the seats are given, an exception when the call may wait no longer.
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Flow:
    """The calls of one key.

    `served` is the virtual time up to which the flow has had its share.
    """

    __slots__ = ("in_use", "key", "queued", "served", "waiting")

    def __init__(self, key: Hashable, served: float) -> None:
        self.key = key
        self.served = served
        self.in_use = 0
        # In order of arrival; a dict, because calls may leave from the middle.
        self.waiting: dict[_Waiter, None] = {}
        # Whether the flow is in the heap of flows that may have the next seat.
        self.queued = False

    @property
    def first(self) -> _Waiter:
        return next(iter(self.waiting))


class FairQueue:
    """The seats of the class `name`.

    `on_refused` is called with each refusal; `refusal` makes its error.
    """

    def __init__(
        self,
        name: str,
        bounds: QueueBounds,
        on_refused: Callable[[], None] = lambda: None,
        *,
        refusal: Refusal | None = None,
    ) -> None:
        self.name = name
        self.bounds = bounds
        self.in_use = 0
        self.waiting = 0
        self._on_refused = on_refused
        self._refusal = refusal or self._too_many
        self._flows: dict[Hashable, _Flow] = {}
        # The heap of flows whose bound allows their first waiter: (virtual time, tie-breaker, flow).
        self._next: list[tuple[float, int, _Flow]] = []
        self._entries = 0
        self._virtual = 0.0

    @property
    def flows(self) -> int:
        """The number of flows that hold a seat or wait for one."""
        return len(self._flows)

    def fit(self, width: int) -> int:
        """Returns `width`, but at least one seat and at most as many as a flow may hold."""
        return max(1, min(width, self.bounds.seats_per_flow, self.bounds.seats))

    def try_acquire(self, key: Hashable, width: int = 1) -> bool:
        """Takes `width` seats if no other call waits for them; returns whether it did.

        `width` must `fit`.
        """
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

    async def acquire(self, key: Hashable, width: int = 1, until: float | None = None) -> None:
        """Takes `width` seats, which must `fit`, in this call's turn.

        It waits for at most `wait_seconds` of the bounds, or until `until` by the event loop's clock.

        Raises:
            PilothouseError: `refusal`, by default ResourceExhausted: too many calls wait, or this one waited too long.
        """
        if self.try_acquire(key, width):
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
                self.release(key, width)
            raise
        finally:
            if not waiter.given:
                self._leave(waiter)

    @asynccontextmanager
    async def seat(self, key: Hashable, until: float | None = None) -> AsyncIterator[None]:
        """Holds one seat. Raises as `acquire`."""
        await self.acquire(key, 1, until)
        try:
            yield
        finally:
            self.release(key)

    def release(self, key: Hashable, width: int = 1) -> None:
        """Returns seats; the next calls in turn get them."""
        flow = self._flows[key]
        flow.in_use -= width
        self.in_use -= width
        assert flow.in_use >= 0, "seats are released that nobody holds"
        if flow.waiting:
            self._queue(flow)
        elif not flow.in_use:
            del self._flows[key]
        if self._next:
            self._dispatch()

    def admit_waiting(self, key: Hashable) -> None:
        """Gives seats to all waiting calls of a flow, beyond every bound.

        They will all do the same small work. Each of the calls releases its own seats.
        """
        flow = self._flows.get(key)
        while flow is not None and flow.waiting:
            waiter = flow.first
            del flow.waiting[waiter]
            self.waiting -= 1
            if not waiter.answer.done():
                self._give(waiter, max(flow.served, self._virtual))

    def has_flow(self, key: Hashable) -> bool:
        """Returns whether a flow holds a seat, or waits for one."""
        return key in self._flows

    def check_room(self, key: Hashable) -> None:
        """Raises the error of `acquire` if as many calls already wait as a flow may have."""
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
        # There may be free seats: a flow at its own bound also waits while the class has room.
        self._dispatch()
        return waiter

    def _make_room(self, newcomer: _Flow, width: int) -> None:
        most = max(self._flows.values(), key=lambda flow: len(flow.waiting))
        if len(most.waiting) <= len(newcomer.waiting) + 1:
            raise self._refused(newcomer, width)
        youngest = next(reversed(most.waiting))
        if not youngest.answer.done():
            youngest.answer.set_exception(self._refused(most, youngest.width))
            # Marks the exception as retrieved, so that asyncio logs nothing if its caller leaves now.
            youngest.answer.exception()
        self._leave(youngest)

    def _leave(self, waiter: _Waiter) -> None:
        flow = waiter.flow
        if waiter not in flow.waiting:
            return
        del flow.waiting[waiter]
        self.waiting -= 1
        if flow.waiting:
            # The flow's bound may allow its next call, which may be narrower.
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
        """Gives the free seats to the calls in turn.

        A flow whose first call needs more seats stays in the heap.
        """
        while self._next:
            start, _, flow = self._next[0]
            if not flow.waiting or flow.in_use + flow.first.width > self.bounds.seats_per_flow:
                # All of its calls have left, or the first one has left and the next is wider.
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

    def _refused(self, flow: _Flow, width: int) -> PilothouseError:
        self._on_refused()
        bounds = self.bounds
        return self._refusal(
            flow.in_use + width > bounds.seats_per_flow or len(flow.waiting) >= bounds.waiting_per_flow
        )

    def _too_many(self, of_caller: bool) -> PilothouseError:
        whose = "this caller" if of_caller else "all callers of this server"
        message = f"too many concurrent {self.name} of {whose}; retry with backoff and lower concurrency"
        return too_many_calls(message, self.name.replace(" ", "_"), of_caller=of_caller)
