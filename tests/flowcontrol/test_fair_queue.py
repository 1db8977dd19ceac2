"""The fair queue of seats: bounds hold, every seat is released, and no caller starves.

That is checked for any order of arrivals, ends and cancellations. Controls are queues with one fault each: the checker
finds a history that shows it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import hypothesis
import pytest
from hypothesis import strategies as st

from pilothouse_server.errors import NotFound, ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds, _Flow
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import VirtualTimeLoop, pass_time, virtual_time
from tests.waiting import Stopwatch, patient, within

BOUNDS = QueueBounds(seats=5, seats_per_flow=3, waiting=8, waiting_per_flow=4, wait_seconds=10.0)
USERS = ("ada", "bob", "eve")

# The next event. `come`: a user requests a number of seats. `end` and `cancel`: a present call ends, or is cancelled.
# `end and cancel`: one call ends, and another is cancelled in the same iteration of the event loop, perhaps the one
# that was just given the seat. `pass`: time passes. The numbers choose the calls.
Event = tuple[str, str | int, int]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(USERS), st.integers(1, 4)),
        st.tuples(st.just("end"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("end and cancel"), st.integers(0, 20), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.integers(1, 12), st.just(0)),
    ),
    max_size=40,
)


async def _settled() -> None:
    """Lets every task run that is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


@dataclass
class Calls:
    """Calls that acquire seats, keep them until they are ended, and release them."""

    queue: FairQueue
    held: Counter[str] = field(default_factory=Counter)
    there: list[tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _cancelled_next: asyncio.Task[None] | None = None

    async def happen(self, events: Sequence[Event]) -> None:
        for kind, which, width in events:
            if kind == "come":
                ended = asyncio.Event()
                task = asyncio.create_task(self._call(str(which), width, ended))
                self.there.append((task, ended))
            elif kind == "pass":
                await pass_time(float(which))
            elif self.there:
                task, ended = self.there[int(which) % len(self.there)]
                if kind == "cancel":
                    task.cancel()
                else:
                    ended.set()
                if kind == "end and cancel":
                    self._cancelled_next = self.there[width % len(self.there)][0]
            await _settled()
            self.look()
        await self._all_end()

    async def _call(self, user: str, width: int, ended: asyncio.Event) -> None:
        width = self.queue.fit(width)
        try:
            await self.queue.acquire(user, width)
        except ResourceExhausted:
            return
        self.held[user] += width
        try:
            await ended.wait()
        finally:
            self.held[user] -= width
            self.queue.release(user, width)
            if self._cancelled_next is not None:
                self._cancelled_next.cancel()
                self._cancelled_next = None

    async def _all_end(self) -> None:
        for _task, ended in self.there:
            ended.set()
        tasks = [task for task, _ in self.there]
        try:
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), patient(60.0))
        except TimeoutError:
            self.faults.append("somebody waits for ever")
        self.look()
        left = (self.queue.in_use, self.queue.waiting, self.queue.flows)
        if left != (0, 0, 0):
            self.faults.append(f"all have gone, and of seats, waiting, flows are left {left}")

    def look(self) -> None:
        """Records broken invariants."""
        queue, bounds = self.queue, self.queue.bounds
        if queue.in_use != sum(self.held.values()):
            self.faults.append(f"{queue.in_use} seats are counted, {sum(self.held.values())} are held")
        if queue.in_use > bounds.seats or max(self.held.values(), default=0) > bounds.seats_per_flow:
            self.faults.append(f"more seats are held than there are: {dict(self.held)}")
        if queue.waiting > bounds.waiting:
            self.faults.append(f"{queue.waiting} wait")
        for flow in queue._flows.values():
            if len(flow.waiting) > bounds.waiting_per_flow:
                self.faults.append(f"{len(flow.waiting)} of {flow.key} wait")
            if flow.waiting and not queue.in_use:
                self.faults.append(f"{flow.key} waits, and nobody has a seat")


def faults(kind: type[FairQueue], events: Sequence[Event]) -> list[str]:
    """Returns the faults of a queue of this kind."""

    async def whole() -> list[str]:
        calls = Calls(kind("calls", BOUNDS))
        await calls.happen(events)
        return calls.faults

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(whole())


_FEW = hypothesis.settings(max_examples=100, deadline=None)


@_FEW
@hypothesis.given(EVENTS)
def test_seats_are_conserved_and_bounds_hold(events: Sequence[Event]) -> None:
    assert faults(FairQueue, events) == []


class Forgetful(FairQueue):
    """A queue in which a call that is cancelled as it is given its seat keeps the seat."""

    async def acquire(self, key: Hashable, width: int = 1, until: float | None = None) -> None:
        if self.try_acquire(key, width):
            return
        waiter = self._enqueue(key, width)
        try:
            await waiter.answer
        finally:
            if not waiter.given:
                self._leave(waiter)


class Boundless(FairQueue):
    """A queue that ignores how many seats a flow has."""

    def try_acquire(self, key: Hashable, width: int = 1) -> bool:
        if self.in_use + width > self.bounds.seats:
            return False
        flow = self._flows.setdefault(key, _Flow(key, 0.0))
        flow.in_use += width
        self.in_use += width
        return True


class Sleepy(FairQueue):
    """A queue in which a released seat wakes no waiting call."""

    def _dispatch(self) -> None:
        return


@pytest.mark.full
@pytest.mark.parametrize("kind", [Forgetful, Boundless, Sleepy])
def test_a_fault_of_a_queue_is_found(kind: type[FairQueue]) -> None:
    # `hypothesis.find` raises NoSuchExample if no history shows the fault.
    shown = hypothesis.find(
        EVENTS,
        lambda events: bool(faults(kind, events)),
        settings=hypothesis.settings(max_examples=2000, deadline=None, phases=[hypothesis.Phase.generate]),
    )
    assert faults(kind, shown)


class InOrder(FairQueue):
    """A queue that serves calls in the order of their arrival, because all callers share one flow."""

    async def acquire(self, key: Hashable, width: int = 1, until: float | None = None) -> None:
        await super().acquire("everybody", width, until)

    def release(self, key: Hashable, width: int = 1) -> None:
        super().release("everybody", width)


async def served(kind: type[FairQueue], asked: Sequence[tuple[str, int]], rounds: int) -> Counter[str]:
    """Returns the seats given to each user, out of those released in so many rounds, while all users wait for more."""
    bounds = QueueBounds(seats=4, seats_per_flow=4, waiting=10_000, waiting_per_flow=5_000, wait_seconds=1e6)
    queue, given, order = kind("calls", bounds), Counter[str](), list[tuple[str, int]]()

    async def one(user: str, width: int) -> None:
        await queue.acquire(user, width)
        order.append((user, width))

    tasks = [asyncio.create_task(one(user, width)) for user, width in asked]
    await _settled()
    for _ in range(rounds):
        user, width = order.pop(0)
        given[user] += width
        queue.release(user, width)
        await _settled()
    await cancel_and_wait(*tasks)
    return given


@virtual_time
async def test_a_flood_takes_no_more_than_its_share() -> None:
    # Bob asks for ten times as many seats, four for each call; Ada's calls come last.
    asked = [*[("bob", 4)] * 500, *[("ada", 1)] * 200]
    given = await served(FairQueue, asked, rounds=120)
    assert abs(given["ada"] - given["bob"]) <= 2 * 4 + 4
    assert (await served(InOrder, asked, rounds=120))["ada"] == 0


@virtual_time
async def test_a_wide_call_is_not_overtaken_forever() -> None:
    queue = FairQueue("calls", BOUNDS)
    holders = [("ada", 1), ("bob", 1), ("eve", 1), ("ada", 1), ("bob", 1)]
    for user, width in holders:
        await queue.acquire(user, width)
    wide = asyncio.create_task(queue.acquire("mary", 3))
    await _settled()
    for user, width in holders[:3]:
        queue.release(user, width)
        # A small call tries each time, and must not overtake.
        assert not queue.try_acquire("zoe")
        await _settled()
    await wide


@virtual_time
async def test_a_full_queue_refuses_calls_of_the_flow_that_fills_it() -> None:
    queue = FairQueue("calls", BOUNDS)
    for user, width in (("ada", 3), ("bob", 2)):
        await queue.acquire(user, width)
    waiting = [asyncio.create_task(queue.acquire(user)) for user in [*["ada"] * 4, *["bob"] * 4]]
    await _settled()
    with pytest.raises(ResourceExhausted) as refused:
        await queue.acquire("ada")
    assert refused.value.metadata == {"class": "calls", "limit_of": "caller"}
    assert refused.value.retry_after_seconds
    newcomer = asyncio.create_task(queue.acquire("eve"))
    await _settled()
    ended = [task for task in waiting if task.done()]
    assert len(ended) == 1
    with pytest.raises(ResourceExhausted):
        await ended[0]
    queue.release("bob", 2)
    await newcomer


@virtual_time
async def test_a_wait_is_limited() -> None:
    queue = FairQueue("calls", BOUNDS)
    await queue.acquire("ada", 3)
    await queue.acquire("bob", 2)
    watch = Stopwatch()
    async with within(BOUNDS.wait_seconds + 0.1):
        with pytest.raises(ResourceExhausted) as refused:
            await queue.acquire("eve")
    assert watch.passed() >= BOUNDS.wait_seconds
    assert refused.value.metadata["limit_of"] == "server"
    assert queue.waiting == 0


@virtual_time
async def test_all_waiting_calls_can_be_admitted_together() -> None:
    queue = FairQueue("replays", QueueBounds(100, 1, 100, 100, 10.0))
    await queue.acquire("a")
    waiting = [asyncio.create_task(queue.acquire("a")) for _ in range(5)]
    gone = asyncio.create_task(queue.acquire("a"))
    await _settled()
    queue.admit_waiting("a")
    # The call has been given its seat, and is cancelled before its task runs.
    await cancel_and_wait(gone)
    queue.release("a")
    await asyncio.gather(*waiting)
    late = asyncio.create_task(queue.acquire("a"))
    for _ in waiting:
        await _settled()
        assert not late.done()
        queue.release("a")
    await late
    queue.release("a")
    assert (queue.in_use, queue.waiting, queue.flows) == (0, 0, 0)


@virtual_time
async def test_a_refusal_raises_the_error_of_its_queue() -> None:
    queue = FairQueue(
        "log-ins",
        QueueBounds(1, 1, 0, 0, 1.0),
        refusal=lambda of_caller: NotFound(f"{of_caller}", reason="FULL"),
    )
    await queue.acquire("a")
    with pytest.raises(NotFound, match="True"):
        await queue.acquire("a")
