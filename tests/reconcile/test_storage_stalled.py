"""An API server that responds while its storage does not counts as away, although `/version` responds."""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse_server.reconcile.observe.health import HealthSettings
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import patient, poll_until


async def cluster_row(here: Environment) -> dict[str, Any]:
    (row,) = await here.rows("SELECT status, reason, message, stale_since, last_seen_at FROM clusters")
    return row


async def test_a_cluster_with_stalled_storage_is_away_until_it_recovers(here: Environment) -> None:
    settings = msgspec.structs.replace(
        QUICK, health=HealthSettings(probe_seconds=0.1, answer_seconds=patient(0.5), last_seen_seconds=0.1)
    )
    client = await here.connect("local")
    async with here.reconciling(settings):
        await here.namespace()
        await here.create()
        await here.running()
        assert (await cluster_row(here))["status"] == "healthy"
        here.cluster.faults.storage_stalled = True
        assert await client.version()
        row = await here.until(lambda row: row.observed.stale_since is not None)
        assert row.observed.status == "running"
        away = await poll_until(lambda: cluster_row(here), lambda row: row["reason"] == "StorageStalled")
        assert away["status"] == "unreachable"
        assert "responds, but its storage does not" in away["message"]
        assert away["stale_since"] is not None
        # Requests in that time are accepted, and executed later.
        await here.create("late")
        assert (await cluster_row(here))["last_seen_at"] == away["last_seen_at"]
        here.cluster.faults.storage_stalled = False
        await here.running("late")
        await here.until(lambda row: row.observed.stale_since is None)
        back = await poll_until(lambda: cluster_row(here), lambda row: row["status"] == "healthy")
        assert back["stale_since"] is None


async def test_a_denied_request_does_not_mean_stalled_storage(here: Environment) -> None:
    rules = [{"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}]
    here.cluster.users.add("narrow", "narrow", rules)
    here.cluster.token = "narrow"
    async with here.reconciling():
        await poll_until(lambda: cluster_row(here), lambda row: row["status"] == "healthy")


async def test_throttling_is_no_outage_and_is_obeyed(here: Environment) -> None:
    async with here.reconciling():
        await poll_until(lambda: cluster_row(here), lambda row: row["status"] == "healthy")
        here.cluster.faults.error_code = 429
        here.cluster.faults.error_rate = 1.0
        await here.namespace()
        await here.create()
        row = await here.until(lambda row: bool(row.observed.conditions))
        assert row.observed.reason in ("Throttled", "WaitingForNamespace")
        assert row.observed.stale_since is None
        assert (await cluster_row(here))["status"] == "healthy"
        here.cluster.faults.clear()
        await here.running()
