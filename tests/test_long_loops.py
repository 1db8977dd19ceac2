"""Long loops beside others: of all of them together one goes on in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from pilothouse_server import event_loop
from pilothouse_server.event_loop import Share, cooperatively
from pilothouse_server.tasks import cancel_and_wait

_STEPS = 20


async def steps_in_each_turn(monkeypatch: pytest.MonkeyPatch, loops: int) -> Counter[int]:
    """How many steps of long loops there were in each turn in which there was any."""
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
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


async def test_one_of_all_long_loops_goes_on_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await steps_in_each_turn(monkeypatch, 5)
    assert found.total() == 5 * _STEPS
    assert set(found.values()) == {1}


async def test_long_loops_that_all_go_on_in_each_turn_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: each gives the loop to others, and not to one another."""

    async def used(_self: Share) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Share, "used", used)
    assert max((await steps_in_each_turn(monkeypatch, 5)).values()) == 5


async def test_one_that_is_cancelled_while_it_waits_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    waiting = [asyncio.create_task(Share().used()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    await waiting[4]
    assert [task.cancelled() for task in waiting] == [True] * 4 + [False]
    # The next who comes finds the line as it was.
    await Share().used()
