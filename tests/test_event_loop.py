"""The choice of the event loop, and long work in steps: complete, in order, with other tasks running in between."""

from __future__ import annotations

import asyncio
import time

import pytest

from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.settings.model import EVENT_LOOPS

ITEMS = 10


def work() -> None:
    """Takes longer than one share of time."""
    until = time.perf_counter() + 0.005
    while time.perf_counter() < until:
        continue


async def turns_of_others(*, in_turns: bool) -> int:
    """Returns how often another task ran while ten items were processed."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    seen = []
    if in_turns:
        async for item in cooperatively(range(ITEMS)):
            work()
            seen.append(item)
    else:
        for item in range(ITEMS):
            work()
            seen.append(item)
    task.cancel()
    assert seen == list(range(ITEMS))
    return turns


async def test_other_tasks_run_between_the_items() -> None:
    assert await turns_of_others(in_turns=True) >= ITEMS - 1


async def test_the_check_detects_work_that_blocks_the_loop() -> None:
    assert await turns_of_others(in_turns=False) == 0


@pytest.mark.parametrize("name", EVENT_LOOPS)
def test_an_event_loop_is_chosen_by_its_name(name: str) -> None:
    async def library() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert event_loop.run(library(), name) == name


def test_nearby_moments_share_a_tick_at_or_before_them() -> None:
    moments = [1000.0 + step / 64 for step in range(64)]
    ticks = [event_loop.tick_before(moment) for moment in moments]
    assert all(0 <= moment - tick < 0.25 for moment, tick in zip(moments, ticks, strict=True))
    assert len(set(ticks)) == 4
