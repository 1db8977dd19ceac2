"""The burst gate: it accepts a whole burst before it serves the burst's calls, a few at a time (promise 13).

Calls of other callers pass the gate.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol import burst_gate
from pilothouse_server.flowcontrol.burst_gate import BurstGate
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import within

_WAIT_SECONDS = 5.0
# Anonymous callers are addresses, of type `str`; users are numbers.
_USER = 7


class _Server:
    """Accepts calls, and serves each for `work_seconds`."""

    def __init__(self, work_seconds: float = 0.0) -> None:
        self.burst_gate = BurstGate(_WAIT_SECONDS, self._count)
        self.work_seconds = work_seconds
        self.at_work = self.most_at_work = self.refused = 0
        self.done: Counter[Hashable] = Counter()
        self.order: list[Hashable] = []
        # The callers whose bounds have caused refusals.
        self.limits: set[str] = set()

    def _count(self) -> None:
        self.refused += 1

    async def call(self, caller: Hashable) -> None:
        """Serves a call, from the moment gRPC hands it over."""
        who = object()
        try:
            if not self.burst_gate.passes(caller):
                await self.burst_gate.turn(caller, who)
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
            try:
                await pass_time(self.work_seconds)
            finally:
                self.at_work -= 1
            self.done[caller] += 1
            self.order.append(caller)
        except ResourceExhausted as error:
            self.limits.add(error.metadata["limit_of"])
            raise
        finally:
            self.burst_gate.leave(who)

    @asynccontextmanager
    async def burst(
        self, callers: Sequence[Hashable], apart_seconds: float = 0.0
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Hands over one call of each caller, one after the other.

        The task ends when all calls have ended.
        """

        async def hand_over() -> None:
            calls = []
            for caller in callers:
                calls.append(asyncio.create_task(self.call(caller)))
                await pass_time(apart_seconds)
            await asyncio.gather(*calls, return_exceptions=True)

        task = asyncio.create_task(hand_over())
        try:
            yield task
        finally:
            await cancel_and_wait(task)


@virtual_time
async def test_a_few_concurrent_calls_do_not_wait() -> None:
    server = _Server()
    async with within(0.0001):
        await asyncio.gather(*(server.call("ann") for _ in range(16)))
    assert server.done["ann"] == 16


@virtual_time
async def test_calls_of_a_burst_are_held_until_all_are_accepted() -> None:
    server = _Server(work_seconds=0.001)
    async with server.burst(["eve"] * 500, apart_seconds=0.0002) as burst:
        await pass_time(0.09)
        # The calls that passed before the check are done; the gate holds all others, and none is being served.
        assert (server.done["eve"], server.at_work) == (16, 0)
        assert server.burst_gate.waiting > 400
        await burst
    assert server.done["eve"] == 500
    assert server.burst_gate.waiting == 0


@virtual_time
async def test_few_calls_of_a_burst_are_served_at_a_time() -> None:
    server = _Server(work_seconds=0.001)
    async with server.burst(["eve"] * 500) as burst:
        await pass_time(0.02)
        server.most_at_work = 0
        # Until its end: the rest of a burst delays other callers as much as its beginning does.
        await burst
    assert server.most_at_work == 2
    assert server.done["eve"] == 500


# Served one by one without pauses, 20 and 80 calls were done; the checks for further calls took the rest of the time.
@pytest.mark.parametrize(("work_seconds", "most"), [(0.005, 13), (0.001, 55)])
@virtual_time
async def test_a_burst_is_served_one_by_one_half_the_time_while_others_call(
    work_seconds: float, most: int
) -> None:
    server = _Server(work_seconds)
    burst = [asyncio.create_task(server.call(_USER)) for _ in range(2_000)]
    await pass_time(0.1)
    alone = server.done[_USER]
    for _ in range(10):
        await asyncio.gather(pass_time(0.01), server.call("192.0.2.1"))
    beside = server.done[_USER] - alone
    # Once no other caller makes calls, the burst is served as fast as before.
    await pass_time(0.6)
    again = server.done[_USER]
    await pass_time(0.1)
    assert 10 <= beside <= most
    assert server.done[_USER] - again >= 35
    await cancel_and_wait(*burst)


@virtual_time
async def test_a_few_steady_calls_are_not_held_after_a_burst_of_their_caller() -> None:
    server = _Server(work_seconds=0.005)

    async def one_after_the_other() -> None:
        while True:
            await server.call(_USER)

    async with server.burst([_USER] * 100) as burst, asyncio.TaskGroup() as group:
        callers = [group.create_task(one_after_the_other()) for _ in range(16)]
        await burst
        await pass_time(1.0)
        before = server.done[_USER]
        await pass_time(1.0)
        # Two at a time would be 400.
        assert server.done[_USER] - before > 2_000
        for each in callers:
            each.cancel()


@virtual_time
async def test_a_caller_with_some_dozens_in_progress_is_not_held_for_checks() -> None:
    server = _Server(work_seconds=0.001)

    async def one_after_the_other() -> None:
        while True:
            await server.call(_USER)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(one_after_the_other()) for _ in range(100)]
        await pass_time(1.0)
        before = server.done[_USER]
        await pass_time(1.0)
        # Two at a time would be 2,000; with a check after each sixteen calls it was 1,330.
        assert server.done[_USER] - before > 1_800
        for each in callers:
            each.cancel()


@virtual_time
async def test_a_burst_is_accepted_first_next_to_steady_callers() -> None:
    server = _Server(work_seconds=0.001)

    async def one_after_the_other() -> None:
        while True:
            await server.call(_USER)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(one_after_the_other()) for _ in range(100)]
        await pass_time(1.0)
        async with server.burst(["eve"] * 500, apart_seconds=0.0002) as burst:
            await pass_time(0.02)
            before = server.done.total()
            await pass_time(0.07)
            # Two at a time would be 140.
            assert server.done.total() == before
            await burst
        for each in callers:
            each.cancel()
    assert server.done["eve"] == 500


@virtual_time
async def test_other_callers_pass_a_burst() -> None:
    server = _Server()
    async with server.burst(["eve"] * 2_000) as burst:
        await pass_time(0.01)
        assert not burst.done()
        async with within(0.0001):
            await asyncio.gather(*(server.call("bob") for _ in range(10)))
        assert not burst.done()
        await burst


@virtual_time
async def test_few_anonymous_calls_from_many_addresses_pass() -> None:
    async def passed(callers: Sequence[Hashable]) -> int:
        server = _Server(work_seconds=0.01)
        async with server.burst(callers) as burst:
            await pass_time(0.001)
            at_work = server.at_work
            assert at_work + server.burst_gate.waiting == len(callers)
            await burst
        assert server.done.total() == len(callers)
        return at_work

    addresses = [f"192.0.2.{number}" for number in range(50) for _ in range(10)]
    assert await passed(addresses) == 64
    # Users are not anonymous, so each has its own share.
    assert await passed([number for number in range(50) for _ in range(10)]) == 500


@virtual_time
async def test_bursts_take_turns() -> None:
    server = _Server(work_seconds=0.001)
    async with server.burst(["eve"] * 400 + ["mal"] * 100) as burst:
        await burst
    # Once calls of `mal` are held, the gate releases one call of each caller in turn.
    last_of_mal = len(server.order) - 1 - server.order[::-1].index("mal")
    of_eve = server.order[:last_of_mal].count("eve")
    assert 80 <= of_eve <= 150, of_eve


@virtual_time
async def test_a_wait_for_a_burst_ends_when_the_burst_is_accepted() -> None:
    server = _Server()
    # Nothing is held yet.
    async with within(0.001):
        await server.burst_gate.all_taken_in(_USER)
    burst = [asyncio.create_task(server.call(_USER)) for _ in range(200)]
    await pass_time(0.001)
    assert server.burst_gate.waiting > 100
    held: list[int] = []

    async def wait() -> None:
        await server.burst_gate.all_taken_in(_USER)
        held.append(server.burst_gate.waiting)

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    # A call of another caller does not wait.
    async with within(0.001):
        await server.burst_gate.all_taken_in("192.0.2.1")
    await asyncio.gather(*burst, *waiting)
    # The last held call continues in the same iteration of the event loop.
    assert max(held) <= 1
    assert len(held) == 3


@virtual_time
async def test_the_wait_for_a_burst_that_does_not_end_is_limited() -> None:
    server = _Server(work_seconds=10.0)
    burst = [asyncio.create_task(server.call(_USER)) for _ in range(2_000)]
    await pass_time(0.001)
    async with within(1.1):
        await server.burst_gate.all_taken_in(_USER)
    assert server.burst_gate.waiting
    await cancel_and_wait(*burst)


@virtual_time
async def test_calls_that_wait_for_something_else_make_room() -> None:
    server = _Server(work_seconds=3600.0)
    async with server.burst(["eve"] * 200):
        # The gate releases two hundred calls a second, so another call of that caller is not refused for waiting behind
        # them.
        await pass_time(1.2)
        assert server.at_work == 200
    assert server.done["eve"] == 0


@virtual_time
async def test_a_steady_caller_is_held_no_longer_than_the_wait_limit() -> None:
    """gRPC always has more calls to hand over, but some continue anyway."""
    server = _Server()
    async with server.burst(["eve"] * 8_000, apart_seconds=0.0005):
        await pass_time(1.0)
        assert server.done["eve"] == 16
        await pass_time(2.0)
        before = server.done["eve"]
        await pass_time(0.5)
        assert server.done["eve"] > before + 100


@virtual_time
async def test_too_many_of_one_caller_are_refused() -> None:
    server = _Server(work_seconds=0.001)
    outcomes = await asyncio.gather(*(server.call("eve") for _ in range(3_000)), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, ResourceExhausted)]
    assert len(refused) == server.refused >= 3_000 - 2_500 - 16
    assert {(each.metadata["class"], each.metadata["limit_of"]) for each in refused} == {
        ("arrivals", "caller")
    }
    assert all(each.retry_after_seconds for each in refused)
    assert server.done["eve"] + len(refused) == 3_000


@virtual_time
async def test_anonymous_calls_from_everywhere_leave_room_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("_MOST", 200), ("_MOST_OF_ANONYMOUS", 100), ("_MOST_OF_ONE", 90)):
        monkeypatch.setattr(burst_gate, name, most)
    server = _Server()
    addresses = [f"192.0.2.{number}" for number in range(20) for _ in range(40)]
    async with server.burst(addresses) as burst:
        await pass_time(0.001)
        assert not burst.done()
        async with server.burst([7] * 100) as of_a_user:
            await of_a_user
    # Calls of the caller with the most held calls were refused, and calls that came when all callers had equally many.
    assert server.limits == {"caller", "server"}
    assert server.done[7] == 100
    assert server.refused > 0


@virtual_time
@pytest.mark.parametrize(
    ("many", "few"),
    [
        # A well-behaved caller whose token has to be looked up is anonymous at first.
        ([f"192.0.2.{number}" for number in range(10)], "198.51.100.1"),
        ([*range(10, 20)], _USER),
        # Users hold most places, and anonymous callers less than their half.
        ([*range(10, 20)], "198.51.100.1"),
    ],
    ids=["strangers", "users", "users and a stranger"],
)
async def test_callers_with_few_calls_take_places_of_callers_with_most(
    monkeypatch: pytest.MonkeyPatch, many: list[Hashable], few: Hashable
) -> None:
    for name, most in (("_MOST", 200), ("_MOST_OF_ANONYMOUS", 100), ("_FEW", 0)):
        monkeypatch.setattr(burst_gate, name, most)
    server = _Server(work_seconds=0.001)
    async with server.burst([caller for caller in many for _ in range(50)]) as burst:
        await pass_time(0.001)
        assert server.burst_gate.waiting >= 100
        async with server.burst([few] * 8) as others:
            await others
        assert server.done[few] == 8
        await burst
    assert server.refused == len(many) * 50 - sum(server.done[each] for each in many)
    # No caller has lost more calls than another: all had equally many.
    assert max(server.done[each] for each in many) - min(server.done[each] for each in many) <= 16
    assert server.burst_gate.waiting == 0


@virtual_time
async def test_cancelled_calls_are_not_removed_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all places are taken, a newcomer takes the place of a waiting call, not of a cancelled one."""
    for name, most in (("_MOST_OF_ANONYMOUS", 100), ("_MOST_OF_ONE", 1_000), ("_FEW", 0)):
        monkeypatch.setattr(burst_gate, name, most)
    server = _Server(work_seconds=0.001)
    async with server.burst(["192.0.2.1"] * 90) as taken_back:
        await pass_time(0.0001)
    assert taken_back.done()
    async with (
        server.burst([f"198.51.100.{number}" for number in range(20) for _ in range(5)]) as held,
        server.burst([f"203.0.113.{number}" for number in range(20) for _ in range(3)]) as newer,
    ):
        await pass_time(0.0005)
        assert server.burst_gate.waiting <= 100
        await held
        await newer
    assert server.burst_gate.waiting == 0
    assert server.refused > 0


@virtual_time
async def test_cancelled_calls_leave_nothing_behind() -> None:
    server = _Server()
    calls = [asyncio.create_task(server.call("eve")) for _ in range(1_000)]
    await pass_time(0)
    await cancel_and_wait(*calls)
    assert server.burst_gate.waiting == 0
    await pass_time(1.0)
    async with within(0.0001):
        await server.call("eve")
    assert not server.burst_gate._turns
    assert not server.burst_gate._places


@virtual_time
async def test_all_held_calls_continue_at_shutdown() -> None:
    server = _Server()
    async with server.burst(["eve"] * 2_000) as burst:
        await pass_time(0.001)
        server.burst_gate.end()
        async with within(0.001):
            await burst
    assert server.done["eve"] == 2_000


@virtual_time
async def test_callers_are_forgotten() -> None:
    server = _Server()
    for number in range(300):
        await server.call(number)
        await pass_time(0.01)
    assert len(server.burst_gate._callers) <= 30


@virtual_time
async def test_sequential_calls_are_hardly_delayed() -> None:
    """One call in sixty-four waits for two milliseconds."""
    server = _Server(work_seconds=0.001)
    async with within(0.001 * 640 * 1.05):
        for _ in range(640):
            await server.call(_USER)
    assert server.done[_USER] == 640


@settings(max_examples=30)
@given(
    bursts=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100)), min_size=1, max_size=4),
    apart=st.sampled_from([0.0, 0.0003, 0.002]),
    work=st.sampled_from([0.0, 0.0005, 0.05]),
    taken_back=st.sets(st.integers(0, 300), max_size=40),
)
def test_every_call_continues_or_is_cancelled(
    bursts: list[tuple[str, int]], apart: float, work: float, taken_back: set[int]
) -> None:
    """In any order of calls, no call is forgotten, and no state is left."""

    @virtual_time
    async def run() -> None:
        server = _Server(work_seconds=work)
        calls: list[asyncio.Task[None]] = []
        for caller, count in bursts:
            for _ in range(count):
                calls.append(asyncio.create_task(server.call(caller)))
                await pass_time(apart)
                if len(calls) in taken_back:
                    calls[-1].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        assert all(isinstance(each, asyncio.CancelledError) for each in failed)
        assert server.done.total() == len(calls) - len(failed)
        assert len(failed) <= len(taken_back)
        assert server.burst_gate.waiting == 0
        await pass_time(1.0)
        assert not server.burst_gate._turns
        assert not server.burst_gate._places

    run()
