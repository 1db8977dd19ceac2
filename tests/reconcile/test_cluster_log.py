"""A cluster outage is two log lines, one at its start and one at its end, however many tasks fail."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec

from pilothouse_server.reconcile.observe.health import HealthSettings
from tests.reconcile.environment import QUICK, Environment
from tests.server_logs import logging_as_served
from tests.waiting import poll_until

_AWAY, _BACK = ("warning", "cluster is away"), ("info", "cluster answers")
_NO_USAGE = "node does not report usage"
# However busy the machine is, a cluster that responds is not away.
_HEALTH = HealthSettings(probe_seconds=0.05, answer_seconds=60.0, last_seen_seconds=0.1)


class _Log:
    """The log lines of a server."""

    def __init__(self, written: io.StringIO) -> None:
        self._written = written

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._written.getvalue().splitlines()]

    def told(self) -> list[tuple[str, str]]:
        """Returns the lines above DEBUG about the cluster or its lease.

        Nodes that are just back may report no usage yet, and a first comparison may differ; those lines are left out
        because they are not about an outage.
        """
        return [
            (line["level"], line["event"])
            for line in self.lines()
            if line["level"] != "debug"
            and "local" in (line.get("cluster"), line.get("lease", "")[-5:])
            and line["event"] not in (_NO_USAGE, "compared")
        ]

    async def failures(self) -> tuple[int, int]:
        """Returns how often a watch failed, and how often the server released the cluster."""
        events = [line["event"] for line in self.lines()]
        return events.count("watch interrupted"), sum("lease is released" in event for event in events)


async def _outage(here: Environment, log: _Log) -> None:
    """Makes many tasks fail repeatedly until the server releases the cluster, and waits until it is back."""
    watches, lettings = await log.failures()
    here.cluster.faults.refuse_connections = True
    here.cluster.faults.drop_watches()
    await poll_until(
        log.failures, lambda found: found[0] >= watches + 5 and found[1] >= lettings + 1, seconds=60
    )
    before = log.told().count(_BACK)
    here.cluster.faults.clear()

    async def is_back() -> bool:
        return log.told().count(_BACK) > before

    await poll_until(is_back)
    await here.until(lambda row: row.observed.stale_since is None)


async def test_an_outage_is_two_lines_of_the_log(here: Environment) -> None:
    with logging_as_served("DEBUG", "json") as written:
        log = _Log(written)
        async with here.reconciling(msgspec.structs.replace(QUICK, health=_HEALTH, lease_seconds=60.0)):
            await here.namespace()
            await here.create()
            await here.running()
            before = log.told()
            assert [line for line in before if line in (_AWAY, _BACK)] == [_BACK]
            for _ in range(2):
                await _outage(here, log)
        assert log.told()[len(before) :] == [_AWAY, _BACK, _AWAY, _BACK]
        away = [line for line in log.lines() if line["event"] == _AWAY[1]]
    assert [line["cluster"] for line in away] == ["local"] * 2
    assert all(line["message"].startswith("cluster 'local'") for line in away)
