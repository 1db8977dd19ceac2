"""Long loops: in each turn of the event loop, only one of them continues."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import thread_time

import pytest

from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.event_loop import Share, cooperatively
from pilothouse_server.runtime.tasks import cancel_and_wait

_STEPS = 20


def shares_end_with_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each step use up its share; the last share counts as long as one of a server."""
    event_loop._turns_of_this_loop()._held_seconds = 0.001
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)


async def steps_in_each_turn(monkeypatch: pytest.MonkeyPatch, loops: int) -> Counter[int]:
    """Returns the number of steps of long loops in each turn that had any."""
    shares_end_with_each_step(monkeypatch)
    turn, found = 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def long_loop() -> None:
        async for _ in cooperatively(range(_STEPS)):
            found[turn] += 1

    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(long_loop() for _ in range(loops)))
    await cancel_and_wait(counting)
    return found


async def test_one_of_all_long_loops_continues_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await steps_in_each_turn(monkeypatch, 5)
    assert found.total() == 5 * _STEPS
    assert set(found.values()) == {1}


async def test_the_check_detects_long_loops_that_all_continue_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: each loop yields to other tasks, but not to the other long loops."""

    async def used(_self: Share) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Share, "used", used)
    assert max((await steps_in_each_turn(monkeypatch, 5)).values()) == 5


async def shares_beside_a_call(monkeypatch: pytest.MonkeyPatch, patience: float) -> tuple[int, int]:
    """Returns the steps of a long loop until a call of twenty turns has ended, and its steps in total."""
    shares_end_with_each_step(monkeypatch)
    monkeypatch.setattr(event_loop, "_PATIENCE", patience)
    steps = 0

    async def long_loop() -> None:
        nonlocal steps
        async for _ in cooperatively(range(_STEPS)):
            steps += 1

    async def call() -> int:
        for _ in range(20):
            until = thread_time() + 2 * event_loop._EMPTY_SECONDS
            while thread_time() < until:
                continue
            await asyncio.sleep(0)
        return steps

    beside, _ = await asyncio.gather(call(), long_loop())
    return beside, steps


async def test_a_call_of_many_turns_does_not_wait_for_a_share_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await shares_beside_a_call(monkeypatch, patience=1e9) == (0, _STEPS)


async def test_a_long_loop_continues_even_without_an_empty_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the control: without patience, the loop gets a share in nearly each turn."""
    beside, in_all = await shares_beside_a_call(monkeypatch, patience=0.0)
    assert beside > 5
    assert in_all == _STEPS


async def steps_in_a_hundred_turns(monkeypatch: pytest.MonkeyPatch, item_seconds: float) -> int:
    """Returns how many steps of `item_seconds` a long loop takes next to work of a millisecond in each turn."""
    now, steps = 0.0, 0
    monkeypatch.setattr(event_loop, "thread_time", lambda: now)

    async def long_loop() -> None:
        nonlocal now, steps
        while True:
            await event_loop.long_work()
            now += item_seconds
            steps += 1

    task = asyncio.create_task(long_loop())
    for _ in range(100):
        now += 0.001
        await asyncio.sleep(0)
    await cancel_and_wait(task)
    return steps


async def test_a_longer_step_of_a_long_loop_is_followed_by_a_longer_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 15 <= await steps_in_a_hundred_turns(monkeypatch, 0.001) <= 25
    assert 2 <= await steps_in_a_hundred_turns(monkeypatch, 0.010) <= 4


async def test_a_long_loop_that_is_cancelled_while_it_waits_takes_no_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares_end_with_each_step(monkeypatch)
    waiting = [asyncio.create_task(Share().used()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    await waiting[4]
    assert [task.cancelled() for task in waiting] == [True] * 4 + [False]
    # The queue is intact for the next caller.
    await Share().used()


class _Clock:
    """A fake `perf_counter` for the event loop's turns: it stands still, or jumps a second at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.leaps = 0.0, False
        monkeypatch.setattr(event_loop, "perf_counter", self._read)
        shares_end_with_each_step(monkeypatch)

    def _read(self) -> float:
        self.now += self.leaps
        return self.now


async def last_steps_beside_a_call_that_waits(
    monkeypatch: pytest.MonkeyPatch, *, last: bool, patience: float
) -> tuple[int, int]:
    """Returns the steps of a long loop until a call with twenty statements has ended, and its steps in total.

    The turns between two database responses are empty.
    """
    clock = _Clock(monkeypatch)
    monkeypatch.setattr(event_loop, "_PATIENCE", patience)
    steps = 0

    async def long_loop() -> None:
        nonlocal steps
        share = Share(last=last)
        for _ in range(_STEPS):
            await share.used()
            steps += 1

    async def call() -> int:
        for _ in range(20):
            until = thread_time() + 2 * event_loop._EMPTY_SECONDS
            while thread_time() < until:
                continue
            clock.now += event_loop._QUIET_SECONDS / 2
            for _ in range(5):
                await asyncio.sleep(0)
        clock.leaps = True
        return steps

    beside, _ = await asyncio.gather(call(), long_loop())
    return beside, steps


async def test_a_last_share_does_not_delay_a_call_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await last_steps_beside_a_call_that_waits(monkeypatch, last=True, patience=1e9) == (0, _STEPS)


async def test_other_long_loops_use_the_turns_that_a_call_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the control."""
    beside, in_all = await last_steps_beside_a_call_that_waits(monkeypatch, last=False, patience=1e9)
    assert beside > 5
    assert in_all == _STEPS


async def test_a_last_share_continues_even_if_calls_never_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside, in_all = await last_steps_beside_a_call_that_waits(monkeypatch, last=True, patience=0.0)
    assert beside > 5
    assert in_all == _STEPS


async def test_last_shares_run_after_other_long_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    monkeypatch.setattr(event_loop, "_PATIENCE", 1e9)
    order: list[str] = []

    async def long_loop(name: str, share: Share) -> None:
        for _ in range(3):
            await share.used()
            order.append(name)

    ones = [asyncio.create_task(long_loop("last", Share(last=True))) for _ in range(2)]
    await asyncio.sleep(0)
    gone = asyncio.create_task(Share(last=True).used())
    await asyncio.sleep(0)
    await long_loop("other", Share())
    gone.cancel()
    clock.leaps = True
    await asyncio.gather(*ones)
    assert order == [*3 * ["other"], *6 * ["last"]]
