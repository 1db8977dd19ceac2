"""Token buckets: counts, and callers that wait for their tokens in order.

No caller waits for another caller's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies as st

from pilothouse_server.flowcontrol.classes import CLUSTER_CALL_RATE, REFUSALS, STREAM_OPENS
from pilothouse_server.flowcontrol.token_bucket import KeyedRate, TokenBucket, TokenBuckets, _Line
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import hold_up, pass_time, virtual_time
from tests.waiting import Stopwatch, within

_HELD = 2_000


def test_a_bucket_gives_a_burst_and_then_reserves_at_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(10, 2, clock=lambda: now)
    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    now = 60.0
    assert [bucket.reserve() for _ in range(3)] == pytest.approx([0, 0, 0.1])
    # Reading the wait takes no token.
    assert bucket.seconds_until_one() == bucket.seconds_until_one() == pytest.approx(0.2)
    bucket.give_back()
    assert bucket.seconds_until_one() == pytest.approx(0.1)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "reserve", "give back", "pass"]), st.floats(0.0, 3.0)), max_size=60
)


@hypothesis.settings(deadline=None)
@hypothesis.given(_STEPS)
def test_a_bucket_never_gives_more_than_its_burst_and_rate(steps: Sequence[tuple[str, float]]) -> None:
    now, taken, per_second, burst = 0.0, 0, 4.0, 3
    bucket = TokenBucket(per_second, burst, clock=lambda: now)
    for kind, seconds in steps:
        if kind == "pass":
            now += seconds
        elif kind == "take":
            taken += bucket.try_take()
        elif kind == "give back" and taken:
            taken -= 1
            bucket.give_back()
        elif kind == "reserve":
            # The reserved token may be used after that wait, and not before.
            now += bucket.reserve()
            taken += 1
        assert taken <= burst + per_second * now + 1e-6
        assert bucket.tokens <= burst


def test_the_key_that_was_used_least_recently_is_forgotten() -> None:
    buckets = TokenBuckets(1.0, 1, clock=lambda: 0.0, most_keys=2)
    assert buckets.of("a").try_take()
    assert buckets.of("b").try_take()
    assert not buckets.of("a").try_take()
    assert buckets.of("c").try_take()
    assert len(buckets) == 2
    assert not buckets.of("a").try_take()
    assert buckets.of("b").try_take()


async def _all_at_once(refusing: KeyedRate, count: int, told: list[float]) -> None:
    watch = Stopwatch()

    async def refused() -> None:
        await refusing.acquire("eve")
        told.append(watch.passed())

    await asyncio.gather(*(refused() for _ in range(count)))


@virtual_time
async def test_the_first_refusals_are_immediate_and_later_ones_in_turn() -> None:
    told: list[float] = []
    await _all_at_once(KeyedRate(*REFUSALS), 700, told)
    assert sum(after < 0.001 for after in told) == 20
    # The later ones follow at fifty a second.
    assert 13.0 < told[-1] < 14.0


@virtual_time
async def test_no_caller_waits_for_the_refusals_of_another() -> None:
    refusing = KeyedRate(*REFUSALS)
    flood = asyncio.create_task(_all_at_once(refusing, _HELD, []))
    await pass_time(0.001)
    async with within(0.001):
        await refusing.acquire("bob")
    assert not flood.done()
    await flood


@virtual_time
async def test_the_wait_is_bounded_and_no_refusal_becomes_immediate_for_it() -> None:
    told: list[float] = []
    await _all_at_once(KeyedRate(*REFUSALS), 5_000, told)
    assert told[-1] <= 15.1
    assert sum(after < 0.001 for after in told) == 20


@virtual_time
async def test_refusals_after_long_waits_stay_spread_out() -> None:
    told: list[float] = []
    await _all_at_once(KeyedRate(*REFUSALS), 1_500, told)
    later = Counter(int(after * 10) for after in told if after > 0.1)
    # When every refusal waited equally long, half of all were sent in the last moment.
    assert max(later.values()) < 60, later.most_common(3)


@virtual_time
async def test_streams_open_at_their_rate() -> None:
    opened: list[float] = []
    await _all_at_once(KeyedRate(*STREAM_OPENS), 200, opened)
    assert sum(after < 0.001 for after in opened) == 4
    assert 4.5 < opened[-1] < 5.0


@virtual_time
async def test_cluster_calls_are_spread_out_and_wait_a_second_at_most() -> None:
    gone: list[float] = []
    await _all_at_once(KeyedRate(*CLUSTER_CALL_RATE), 100, gone)
    assert sum(after < 0.001 for after in gone) == 1
    assert 0.3 < gone[-1] < 0.5
    gone.clear()
    await _all_at_once(KeyedRate(*CLUSTER_CALL_RATE), 1_000, gone)
    assert max(gone) <= 1.0


@virtual_time
async def test_all_refusals_are_sent_after_close() -> None:
    refusing = KeyedRate(*REFUSALS)
    told: list[float] = []
    flood = asyncio.create_task(_all_at_once(refusing, _HELD, told))
    await pass_time(0.001)
    assert not flood.done()
    refusing.close()
    # They are still paced, not sent in one moment.
    async with within(5.0):
        await flood
    assert told[-1] - told[20] > 3.0
    async with within(0.001):
        await refusing.acquire("bob")


@virtual_time
async def test_a_cancelled_wait_leaves_its_turn_to_another() -> None:
    refusing = KeyedRate(10.0, 1, 1_000.0)
    await refusing.acquire("eve")
    waiting = [asyncio.create_task(refusing.acquire("eve")) for _ in range(100)]
    await pass_time(0.001)
    await cancel_and_wait(*waiting)
    assert all(each.cancelled() for each in waiting)
    # The cancelled calls had ten seconds of turns.
    async with within(0.2):
        await refusing.acquire("eve")
    # Cancelled calls that waited for the longest allowed time give back no turn, because they had none.
    waiting = [asyncio.create_task(refusing.acquire("ann")) for _ in range(20_000)]
    await pass_time(0.001)
    await cancel_and_wait(*waiting)
    begun: list[float] = []
    watch = Stopwatch()

    async def begins() -> None:
        await refusing.acquire("ann")
        begun.append(watch.passed())

    await asyncio.gather(*(begins() for _ in range(20)))
    assert 1.8 < begun[-1] < 2.1


@virtual_time
async def test_newcomers_after_cancellations_do_not_run_in_parallel_turns() -> None:
    openings = KeyedRate(*STREAM_OPENS)
    begun: list[float] = []
    watch = Stopwatch()

    async def begins() -> None:
        await openings.acquire("eve")
        begun.append(watch.passed())

    leaving = [asyncio.create_task(openings.acquire("eve")) for _ in range(100)]
    await pass_time(0.001)
    staying = [asyncio.create_task(begins()) for _ in range(100)]
    await pass_time(0.001)
    await cancel_and_wait(*leaving)
    coming = [asyncio.create_task(begins()) for _ in range(100)]
    await asyncio.gather(*staying, *coming)
    # If the turns of the cancelled calls were given back, two streams would open at a time.
    assert max(Counter(int(after * 4) for after in begun).values()) <= 11, begun
    assert 4.9 < begun[-1] < 5.1


class _Leaving(KeyedRate):
    """A rate whose first waiting caller is cancelled at the moment of its turn."""

    leaving: asyncio.Task[None] | None = None

    def _serve_next(self, line: _Line) -> bool:
        leaving, self.leaving = self.leaving, None
        given = super()._serve_next(line)
        if leaving is not None:
            leaving.cancel()
        return given


@virtual_time
async def test_a_call_cancelled_at_its_turn_passes_the_turn_on() -> None:
    openings = _Leaving(10.0, 1, 1_000.0)
    await openings.acquire("eve")
    openings.leaving = leaving = asyncio.create_task(openings.acquire("eve"))
    await pass_time(0.001)
    begun: list[float] = []
    await _all_at_once(openings, 10, begun)
    assert leaving.cancelled()
    # The first one continues in the turn of the cancelled call, and nine more after it.
    assert 0.09 < begun[0] < 0.11
    assert 0.99 < begun[-1] < 1.01


@virtual_time
async def test_a_delayed_event_loop_does_not_cause_a_burst_of_refusals() -> None:
    refusing = KeyedRate(*REFUSALS)
    told: list[float] = []
    flood = asyncio.create_task(_all_at_once(refusing, 200, told))
    await pass_time(0.001)
    hold_up(1.0)
    await flood
    assert max(Counter(int(after * 10) for after in told if after > 0.1).values()) <= 6


@virtual_time
async def test_try_acquire_fails_while_another_call_waits() -> None:
    hurried = KeyedRate(8.0, 4, 1.0)
    assert [hurried.try_acquire("eve") for _ in range(6)] == [True] * 4 + [False] * 2
    assert hurried.try_acquire("bob")
    await pass_time(0.126)
    assert [hurried.try_acquire("eve") for _ in range(2)] == [True, False]
    waiting = asyncio.create_task(hurried.acquire("eve"))
    await pass_time(0.001)
    assert not waiting.done()
    await waiting


@virtual_time
async def test_callers_that_do_not_return_are_forgotten() -> None:
    refusing = KeyedRate(*REFUSALS, most_keys=1_000)
    for number in range(5_000):
        await refusing.acquire(number)
        await pass_time(0.01)
    assert refusing.keys <= 1_000
