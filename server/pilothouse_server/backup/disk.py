"""Disk operations of a backup: one step after the other, by threads of their own.

A disk may hang, such as a network share whose server is down, and nobody can end a thread that waits for it. So no step
runs on the event loop, nor on asyncio's shared threads, for which a process waits at its end. A caller that waits for a
step may give it up at any time. The next step begins only after the previous one has ended, so that nothing is written
to a folder after its removal.

Errors of the system are translated here, because elsewhere the same errors mean a connection to the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from pilothouse_server.backup.failures import refused, unreadable

T = TypeVar("T")

# The most steps that run or wait for one that hangs; no more are begun.
_MOST_WAITING: Final = 4
# The longest time of a step: each reads or writes little, even if all steps together take hours.
_ANSWER_SECONDS: Final = 60.0
# How long a backup that failed waits until its files are removed.
_CLEARING_SECONDS: Final = 2.0


class Disk:
    """The steps of one folder, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one_at_a_time = threading.Lock()
        self._steps = 0

    async def run(self, step: Callable[..., T], *given: Any) -> T:
        """Runs a step, and returns its result. A step that is given up before it begins is skipped.

        Raises:
            FailedPrecondition: too many steps wait for one that hangs, or the system refuses it.
            The step's own exceptions pass through.
        """
        if self._steps >= _MOST_WAITING:
            raise refused(
                "the disk of the backups hangs: an earlier operation has not returned yet", "DISK_HANGS"
            )
        given_up = threading.Event()
        try:
            return await self._begun(lambda: self._translated(step, *given), given_up.is_set)
        finally:
            given_up.set()

    async def answer(self, step: Callable[..., T], *given: Any) -> T:
        """Runs a short step, as all steps of a backup are. Raises FailedPrecondition if it takes a minute."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self.run(step, *given)
        except TimeoutError:
            raise refused(
                f"the disk of the backups hangs: it does not respond within {_ANSWER_SECONDS:.0f} s",
                "DISK_HANGS",
            ) from None

    async def clear(self, step: Callable[[], object]) -> None:
        """Runs a step after those before it, and waits briefly for it. Its errors are ignored."""
        await asyncio.wait([self._begun(step, lambda: False)], timeout=_CLEARING_SECONDS)

    def _translated(self, step: Callable[..., T], *given: Any) -> T:
        try:
            return step(*given)
        except OSError as error:
            raise unreadable(self._folder, error) from None

    def _begun(self, step: Callable[[], T], given_up: Callable[[], bool]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(outcome: list[T], failure: Exception | None) -> None:
            self._steps -= 1
            if done.done():
                return
            if failure is not None:
                done.set_exception(failure)
                # Marks the error as retrieved, because nobody may wait for it any more.
                done.exception()
            elif outcome:
                done.set_result(outcome[0])

        def run() -> None:
            outcome: list[T] = []
            failure: Exception | None = None
            with self._one_at_a_time:
                try:
                    if not given_up():
                        outcome.append(step())
                except Exception as error:  # noqa: BLE001 - passed to the caller that waits
                    failure = error
            # The loop may have ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, outcome, failure)

        threading.Thread(target=run, name="backup", daemon=True).start()
        self._steps += 1
        return done
