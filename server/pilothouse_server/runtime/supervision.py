"""Keeps a server's background tasks running.

A task that ends with an exception is logged with its name and started again, after a delay that doubles
from a tenth of a second to half a minute; after a task has run for a minute, the delay begins at the shortest again.
No failure is hidden: each is logged and counted, with a traceback unless it is a domain error, such as an unreachable
database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter

from pilothouse_server.runtime.backoff import backoff_seconds
from pilothouse_server.runtime.log_lines import reason_of, without_values
from pilothouse_server.runtime.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

FAILURES = Counter(
    "pilothouse_background_failures_total", "Background tasks that failed and were restarted.", ("task",)
)
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 30.0
_SETTLED_SECONDS = 60.0


class Supervisor:
    """The background tasks of a server."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Runs `work` until `stop`, and starts it again whenever it ends."""
        self._tasks.append(asyncio.create_task(_forever(name, work), name=name))

    async def stop(self) -> None:
        """Cancels the tasks, the youngest first, and waits for them."""
        while self._tasks:
            await cancel_and_wait(self._tasks.pop())


async def _forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    failures = 0
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        # A separate task for each attempt: a TaskGroup that failed leaves its task marked as cancelled
        # (Python 3.11), and a TaskGroup that is cancelled may raise its tasks' failures instead.
        attempt = asyncio.create_task(_attempt(work), name=name)
        try:
            await asyncio.wait([attempt])
        finally:
            await cancel_and_wait(attempt)
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            FAILURES.labels(name).inc()
            if reason := reason_of(error):
                log.warning("background task failed", task=name, reason=reason)
            else:
                log.error(
                    "background task failed",
                    task=name,
                    error=type(error).__name__,
                    exc_info=without_values(error),
                )
        failures = 1 if loop.time() - started > _SETTLED_SECONDS else failures + 1
        await asyncio.sleep(backoff_seconds(failures, _FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS))


async def _attempt(work: Callable[[], Awaitable[None]]) -> None:
    await work()
