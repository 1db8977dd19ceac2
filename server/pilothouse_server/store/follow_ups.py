"""Follow-ups: rows that commits leave for another transaction.

So the commits stay short and wait for few locks.

A change leaves rows that name the values to write. Soon after its commit a server writes these values in a short
transaction and deletes the rows in the same transaction, as it does for observed changes.

The commit wakes the server that made it. The server gathers rows for a moment, because a transaction for a few rows
costs almost as much as one for thirty. If its process dies first, the rows are still there: every server checks for
them every few seconds, and when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.store.unit_of_work import Store

# Handles a part of these rows; returns a true value if it wrote something.
FollowUpWriter = Callable[[Store], Awaitable[object]]

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0
GATHER_SECONDS = 0.03


class FollowUps:
    """Runs the writers for the rows that commits have left.

    All servers on the database share this work.
    """

    def __init__(self, store: Store, writers: Sequence[FollowUpWriter]) -> None:
        self._store = store
        self._writers = writers

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            for write in self._writers:
                try:
                    while await write(self._store):  # noqa: ASYNC110 - more rows are gathered
                        await asyncio.sleep(GATHER_SECONDS)
                except PilothouseError as error:
                    # The rows stay for the next attempt.
                    log.warning(
                        "events of a change could not be written yet; they are retried", reason=error.reason
                    )
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._store.follow_ups.wait()
            await asyncio.sleep(GATHER_SECONDS)
        self._store.follow_ups.clear()
