"""Ends and awaits tasks without losing a cancellation.

A coroutine that catches CancelledError cannot know from the exception alone which task was cancelled: the awaited
one, or its own. A task that mistakes its own cancellation for that of the awaited task runs for ever, and
everything that waits for its end hangs. All functions that must catch CancelledError are in this module; `make lint`
forbids it elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Cut:
    """A wait of the current task that other tasks may cut off.

    It is like `asyncio.timeout`, but without a timer.

        with Cut() as cut:
            await something     # TimeoutError if another task calls cut.off() in that time

    It costs a tenth of `asyncio.timeout`, for a caller that waits a thousand times a second and is hardly ever cut off.
    """

    __slots__ = ("_before", "_task", "was_cut")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only a task can be cut off"
        self._task = task
        self._before = task.cancelling()
        self.was_cut = False

    def off(self) -> None:
        """Ends the wait. Call it once, during the wait."""
        self.was_cut = True
        self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # If the task was also cancelled, that takes precedence.
        if self.was_cut and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancels the tasks and returns once all of them have ended, however they ended.

    A task that fails while it ends is logged. The owner of a task that was already done must check its outcome.

    Raises:
        CancelledError: the caller was cancelled in that time. The tasks were cancelled once more and have
            ended.
    """
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    # `gather` returns the tasks' own cancellations as outcomes, and raises the caller's cancellation.
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for task, outcome in zip(tasks, outcomes, strict=True):
        if task in pending and isinstance(outcome, Exception):
            name = task.get_name() if isinstance(task, asyncio.Task) else ""
            log.warning("task failed while it was ended", task=name, exc_info=outcome)


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` to its end even if the caller is cancelled in that time.

    Raises:
        CancelledError: the caller was cancelled, and `work` has ended; if `work` failed, its exception is the
            cause. (If that exception were raised instead, a caller that handles failures in a loop would continue
            as if it had not been cancelled.)
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise cancelled from (None if task.cancelled() else task.exception())
