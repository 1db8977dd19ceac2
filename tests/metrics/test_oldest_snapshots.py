"""The metrics show the snapshots that hold VACUUM back, and the log names a connection that does so for long."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from pilothouse_server.metrics.operations import DatabaseGauges, gauges
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database, connection
from tests.identity.server import settings_of
from tests.waiting import poll_until


async def test_a_session_with_an_old_snapshot_is_shown_and_named(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dumps hold such a snapshot, and so do forgotten psql windows."""
    monkeypatch.setattr(gauges, "_HELD_LONG_SECONDS", 0.0)
    shown = partial(REGISTRY.get_sample_value, labels={"holder": "session"})
    pools = Pools.connect(settings_of(database))
    look = DatabaseGauges(Store(pools)).look

    async def transactions() -> float | None:
        await look()
        return shown("pilothouse_database_oldest_xmin_transactions")

    try:
        async with connection(database.admin_dsn) as admin:
            await admin.execute("SET application_name = 'forgotten'")
            async with admin.transaction(isolation="repeatable_read"):
                await admin.fetchval("SELECT pg_current_xact_id()")
                async with connection(database.admin_dsn) as other:
                    for _ in range(20):
                        await other.execute("SELECT pg_current_xact_id()")
                with capture_logs() as logs:
                    assert (await transactions() or 0) >= 20
                assert (shown("pilothouse_database_oldest_xmin_seconds") or 0) > 0
                told = [line for line in logs if "VACUUM cannot remove rows" in line["event"]]
                assert [line["name"] for line in told] == ["forgotten"]
        await poll_until(transactions, lambda count: count is not None and count < 20)
    finally:
        await pools.close()
