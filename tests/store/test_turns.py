"""One call at a time for each key, and nobody is left standing in a line."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse_server.store.turns import Turns
from tests.waiting import patient, runs_out, within


async def standing(turns: Turns, key: str, count: int) -> list[asyncio.Task[bool]]:
    """So many who wait, in the order of the list."""
    tasks = [asyncio.create_task(turns.take(key, patient(20.0))) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_turns_are_taken_one_after_another_in_order() -> None:
    turns = Turns()
    assert await turns.take("a", 0.0)
    assert await turns.take("b", 0.0)
    first, second = await standing(turns, "a", 2)
    assert not first.done()
    turns.give_back("a")
    async with within(1.0):
        assert await first
    assert not second.done()
    turns.give_back("a")
    async with within(1.0):
        assert await second
    turns.give_back("a")
    assert await turns.take("a", 0.0)


async def test_all_who_wait_are_told_of_an_answer_and_the_line_is_gone() -> None:
    turns = Turns()
    assert await turns.take("a", 0.0)
    waiting = await standing(turns, "a", 5)
    turns.give_back("a", answered=True)
    async with within(1.0):
        assert await asyncio.gather(*waiting) == [False] * 5
    assert await turns.take("a", 0.0)


async def test_who_goes_away_takes_no_turn_along() -> None:
    turns = Turns()
    assert await turns.take("a", 0.0)
    gone, late, last = await standing(turns, "a", 3)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    turns.give_back("a")
    # It has the turn, and is cancelled before it learns so.
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    async with within(1.0):
        assert await last
    turns.give_back("a")
    assert await turns.take("a", 0.0)


async def test_a_wait_ends_with_its_time_and_the_lines_have_a_bound() -> None:
    turns = Turns(most_waiting=2)
    assert await turns.take("a", 0.0)
    with pytest.raises(TimeoutError):
        await turns.take("a", runs_out(0.01))
    waiting = await standing(turns, "a", 2)
    with pytest.raises(TimeoutError):
        await turns.take("a", patient(20.0))
    # Another line is not held up by it.
    assert await turns.take("b", 0.0)
    turns.give_back("a", answered=True)
    async with within(1.0):
        assert await asyncio.gather(*waiting) == [False, False]
