"""Records have the later time if two clocks differ.

A record waits until a partition contains its time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.streams import ChangeKind
from pilothouse_server.store.clock import RecordClock
from tests.conftest import Database, number_changes
from tests.harness import running_server
from tests.waiting import within

YEARS = timedelta(days=730)


@pytest.mark.parametrize("apart", [YEARS, -YEARS, timedelta(minutes=2), -timedelta(minutes=2)])
def test_the_later_of_two_clocks_counts_and_the_gap_is_logged_once(apart: timedelta) -> None:
    clock = RecordClock()
    with capture_logs() as logs:
        for _ in range(2):
            ours = datetime.now(UTC)
            clock.note(ours + apart)
            assert abs(clock.now() - max(ours, ours + apart)) < timedelta(minutes=1)
    (told,) = logs
    assert told["log_level"] == "warning"
    assert abs(told["database_ahead_seconds"] - apart.total_seconds()) < 60
    clock.note(datetime.now(UTC))
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=30)


def test_a_small_clock_difference_is_ignored() -> None:
    clock = RecordClock()
    with capture_logs() as logs:
        clock.note(datetime.now(UTC) + timedelta(seconds=30))
        assert clock.now() <= datetime.now(UTC)
    assert logs == []


async def test_work_under_a_clock_years_ahead_is_recorded_and_watched(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times have not been corrected, as for calls at the moment when a clock jumps."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        async with server.admin.containers.watch(namespace="shop") as changes:
            while (await anext(changes)).kind is not ChangeKind.SYNCED:
                pass
            with monkeypatch.context() as patch:
                patch.setattr(RecordClock, "now", lambda _: datetime.now(UTC) + YEARS)
                await server.admin.containers.create(
                    namespace="shop", container=container_pb2.Container(name="web", image="nginx:1.27")
                )
                async with within(20):
                    assert (await anext(changes)).resource.name == "web"
        async with database.system() as sql:
            await number_changes(sql)
            row = await sql.fetchrow(
                "SELECT action, started_at FROM operation_logs WHERE resource_name = 'web' AND action = 'create'"
            )
            assert row is not None
            assert row["started_at"] > datetime.now(UTC) + timedelta(days=700)


async def test_a_servers_feed_notes_the_databases_clock(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[datetime] = []
    monkeypatch.setattr(RecordClock, "note", lambda _, theirs: noted.append(theirs))
    async with running_server(database, tmp_path, with_cluster=False):
        assert noted
        assert noted[0].tzinfo is not None
