"""Follow-ups: rows that commits leave for another transaction, so that they stay short and wait for no lock of others.

A change leaves rows that name the values to write. Soon after its commit a server writes these in a short transaction
of its own and removes the rows in it, as observed changes are written.

The server that has committed the change is woken by it. It gathers rows for a moment, because a transaction for a few
costs almost as much as one for thirty. If its process dies before, the rows are still there: every server looks for
them every few seconds, and when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.store.unit_of_work import Store

# Handles a part of these rows; returns something true where it wrote.
FollowUpWriter = Callable[[Store], Awaitable[object]]

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0
GATHER_SECONDS = 0.03


class FollowUps:
    """Has the writers handle the rows that commits have left, shared by all servers on the database."""

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
                    # The rows stay.
                    log.warning("the events that a change has left are written later", reason=error.reason)
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._store.follow_ups.wait()
            await asyncio.sleep(GATHER_SECONDS)
        self._store.follow_ups.clear()
