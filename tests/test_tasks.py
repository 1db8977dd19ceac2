"""Tasks end, and no cancellation of a caller is lost."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing

from pilothouse_server.runtime.supervision import Supervisor
from pilothouse_server.runtime.tasks import Cut, cancel_and_wait, uncancelled
from tests.waiting import within


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails_while_it_winds_up() -> None:
    try:
        await for_ever()
    finally:
        raise ValueError("cannot be wound up")


async def test_a_cancelled_task_does_not_cancel_its_caller() -> None:
    task = asyncio.create_task(for_ever())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.cancelled()


async def test_the_callers_cancellation_is_raised_once_the_task_has_ended() -> None:
    winding_up = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await for_ever()
        finally:
            winding_up.set()
            await for_ever()

    task = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_and_wait(task))
    await winding_up.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert task.cancelled()


async def test_a_failure_during_a_tasks_cleanup_is_logged_and_other_tasks_end() -> None:
    tasks = [asyncio.create_task(work(), name=work.__name__) for work in (fails_while_it_winds_up, for_ever)]
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logged:
        await cancel_and_wait(*tasks)
    assert [task.done() for task in tasks] == [True, True]
    assert [(line["task"], str(line["exc_info"])) for line in logged] == [
        ("fails_while_it_winds_up", "cannot be wound up")
    ]


async def test_a_task_that_had_failed_before_is_not_logged() -> None:
    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    with structlog.testing.capture_logs() as logged:
        await cancel_and_wait(task)
    assert logged == []


async def test_uncancelled_work_ends_before_the_cancellation_is_raised() -> None:
    allowed, ended = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        await allowed.wait()
        ended.set()

    caller = asyncio.create_task(uncancelled(commit()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    assert not caller.done()
    allowed.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_failure_of_uncancelled_work_does_not_hide_the_cancellation() -> None:
    failing = asyncio.Event()

    async def commit() -> None:
        await failing.wait()
        raise ValueError("not committed")

    async def goes_on() -> None:
        try:
            await uncancelled(commit())
        except ValueError:
            await for_ever()

    caller = asyncio.create_task(goes_on())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    failing.set()
    async with within(5.0):
        await asyncio.wait([caller])
    assert caller.cancelled()


class Waits:
    """A task that waits until it is cut off, then waits for ever; `met` is the error that ended its first wait."""

    def __init__(self, *, fails: bool = False) -> None:
        self.cut: Cut | None = None
        self.met: BaseException | None = None
        self._fails = fails
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            with Cut() as self.cut:
                await (fails_while_it_winds_up() if self._fails else for_ever())
        except (TimeoutError, ValueError) as error:
            self.met = error
        await for_ever()

    def off(self) -> None:
        assert self.cut is not None
        self.cut.off()

    async def passed(self) -> None:
        """Returns after the first wait has ended; the task must continue."""
        for _ in range(3):
            await asyncio.sleep(0)
        assert not self.task.done()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_is_cut_off_continues_uncancelled(fails: bool) -> None:
    waits = Waits(fails=fails)
    await asyncio.sleep(0)
    waits.off()
    await waits.passed()
    assert isinstance(waits.met, ValueError if fails else TimeoutError)
    assert waits.task.cancelling() == 0
    await cancel_and_wait(waits.task)


@pytest.mark.parametrize("cut_first", [False, True])
async def test_a_task_that_is_cancelled_while_it_is_cut_off_is_cancelled(cut_first: bool) -> None:
    waits = Waits()
    await asyncio.sleep(0)
    for end in (waits.off, waits.task.cancel) if cut_first else (waits.task.cancel, waits.off):
        end()
    async with within(5.0):
        await asyncio.wait([waits.task])
    assert waits.task.cancelled()
    assert waits.met is None


async def test_a_timeout_inside_a_cut_does_not_count_as_a_cut() -> None:
    with pytest.raises(TimeoutError), Cut() as cut:
        raise TimeoutError
    assert not cut.was_cut


async def test_a_supervisor_stops_even_if_a_task_fails_during_its_cleanup() -> None:
    began = asyncio.Event()
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_while_it_winds_up() if runs == 1 else for_ever())
            began.set()

    supervisor = Supervisor()
    supervisor.start("fails at its end", work)
    await began.wait()
    await asyncio.sleep(0)
    async with within(5.0):
        await supervisor.stop()
    assert runs == 1


async def test_a_task_whose_group_failed_is_started_again() -> None:
    """On Python 3.11, a TaskGroup with a failed task leaves the surrounding task marked as cancelled."""
    runs = 0
    third = asyncio.Event()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("once more")

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            third.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(for_ever())

    supervisor = Supervisor()
    supervisor.start("fails in a group", work)
    async with within(5.0):
        await third.wait()
        await supervisor.stop()
    assert runs >= 3
