"""Rows that commits leave for a later transaction are gathered, but none waits for long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.follow_ups import GATHER_SECONDS, POLL_SECONDS, FollowUps
from pilothouse_server.store.unit_of_work import Store
from tests.virtual_time import pass_time, virtual_time

_WRITE_SECONDS = 0.008
_COMMITS = 300
_BETWEEN_SECONDS = 0.002


@virtual_time
async def test_rows_of_many_commits_are_written_by_few_transactions() -> None:
    store = SimpleNamespace(follow_ups=asyncio.Event())
    left: list[int] = []
    batches: list[int] = []

    async def write(_store: Store) -> bool:
        if not left:
            return False
        batches.append(len(left))
        left.clear()
        await pass_time(_WRITE_SECONDS)
        return True

    running = asyncio.ensure_future(FollowUps(cast("Store", store), [write]).run())
    try:
        await pass_time(1.0)
        for number in range(_COMMITS):
            left.append(number)
            store.follow_ups.set()
            await pass_time(_BETWEEN_SECONDS)
        # The last rows are written without waiting for the poll.
        await pass_time(POLL_SECONDS / 2)
    finally:
        await cancel_and_wait(running)
    assert sum(batches) == _COMMITS
    least = GATHER_SECONDS / _BETWEEN_SECONDS
    assert len(batches) <= _COMMITS / least + 1, batches
    # A batch has at most the rows that arrive during the longest wait of one row.
    assert max(batches) <= 2 * (GATHER_SECONDS + _WRITE_SECONDS) / _BETWEEN_SECONDS, batches
