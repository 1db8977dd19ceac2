"""A server whose log has no sink queries the database rarely while idle, and immediately after a change."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from pilothouse_server.audit.sinks.runner import SinkRunner
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.watch.hub import Watermark
from tests.virtual_time import pass_time, virtual_time


class Runner(SinkRunner):
    """A runner that counts its attempts to lease a sink, and finds none.

    `there` contains the existing sinks.
    """

    def __init__(self, records: Watermark, there: set[str]) -> None:
        nothing = cast("Any", None)
        super().__init__(nothing, nothing, nothing, records.beyond, newest=lambda: records.newest)
        self.looks = 0
        self._there = there

    async def _take_one(self) -> None:
        self.looks += 1

    async def _show(self) -> None:
        self._shown = self._there


@pytest.mark.parametrize(("there", "least", "most"), [(set[str](), 0, 7), ({"siem"}, 55, 61)])
@virtual_time
async def test_the_runner_queries_rarely_without_a_sink(there: set[str], least: int, most: int) -> None:
    records = Watermark()
    records.advance(7)
    runner = Runner(records, there)
    task = asyncio.create_task(runner.run())
    await pass_time(3.0)
    runner.looks = 0
    await pass_time(60.0)
    assert least <= runner.looks <= most
    # Creating a sink writes a record, which other servers also notice.
    before = runner.looks
    records.advance(8)
    await pass_time(1.1)
    assert runner.looks > before
    await cancel_and_wait(task)
