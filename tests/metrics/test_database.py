"""The state of the database, for users who may see the whole platform."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.errors import PilothouseError
from pilothouse_server.metrics.operations import DatabaseGauges
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.periodic import Periodic, PeriodicWork
from tests.conftest import Database, connection
from tests.harness import running_server
from tests.metrics.served import Served
from tests.waiting import poll_until


async def test_the_state_of_the_database_is_returned(served: Served) -> None:
    async with served.server.database.owner() as owner:
        await owner.execute("ANALYZE containers")
    stats = await served.admin.metrics.get_database_stats(table_name="containers")
    assert stats.database_bytes > 1 << 20
    assert stats.max_connections > 0
    assert stats.committed_transactions > 0
    assert 0 < stats.cache_hit_ratio <= 1
    roles = {item.role_name: item.count for item in stats.connections}
    assert roles["pilothouse_system"] >= 1
    columns = {item.column_name: item for item in stats.column_statistics}
    assert {item.table_name for item in stats.column_statistics} == {"containers"}
    assert columns["id"].n_distinct == -1


async def test_columns_of_every_table_are_returned_if_none_is_named(served: Served) -> None:
    async with served.server.database.owner() as owner:
        await owner.execute("ANALYZE containers, namespaces")
    stats = await served.admin.metrics.get_database_stats()
    assert {"containers", "namespaces"} <= {item.table_name for item in stats.column_statistics}


async def test_slow_statements_are_returned_if_they_are_counted(served: Served) -> None:
    await served.rows("SELECT count(*) FROM containers WHERE name = 'nothing'")
    stats = await served.admin.metrics.get_database_stats(slow_query_limit=100)
    assert stats.slow_queries_available
    assert 0 < len(stats.slow_queries) <= 100
    times = [item.total_duration.ToTimedelta() for item in stats.slow_queries]
    assert times == sorted(times, reverse=True)
    assert all(item.calls > 0 and item.query for item in stats.slow_queries)
    # Statements of other roles are also visible.
    assert not [item.query for item in stats.slow_queries if item.query.startswith("<insufficient")]
    few = await served.admin.metrics.get_database_stats(slow_query_limit=1)
    assert len(few.slow_queries) == 1


async def test_slow_statements_are_unavailable_if_they_are_not_counted(
    database: Database, tmp_path: Path
) -> None:
    async with connection(database.admin_dsn) as admin:
        await admin.execute("DROP EXTENSION pg_stat_statements")
    async with running_server(database, tmp_path, with_cluster=False) as server:
        stats = await server.admin.metrics.get_database_stats()
    assert (stats.slow_queries_available, len(stats.slow_queries)) == (False, 0)


async def test_bloat_is_returned_by_table(served: Served) -> None:
    async with connection(served.server.database.admin_dsn) as admin:
        await admin.execute(
            "CREATE TABLE worn (id bigint CONSTRAINT pk_worn PRIMARY KEY);"
            "ALTER TABLE worn OWNER TO pilothouse_owner;"
            "INSERT INTO worn SELECT generate_series(1, 20000)"
        )
        await admin.execute("DELETE FROM worn WHERE id % 10 > 0")
        await admin.execute("VACUUM (ANALYZE) worn")
    stats = await served.admin.metrics.get_database_stats()
    names = [item.table_name for item in stats.table_bloat]
    assert len(names) == len(set(names))
    assert {"operation_logs", "events", "containers"} < set(names)
    assert not [name for name in names if name.startswith("operation_logs_")]
    worn = stats.table_bloat[names.index("worn")]
    assert 0.8 < worn.table_bloat_bytes / worn.table_bytes < 0.95
    assert 0.5 < worn.index_bloat_bytes / worn.index_bytes < 0.95


async def test_growth_is_returned_by_partition(served: Served) -> None:
    await served.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="grown"))
    await served.rows("SELECT 1")
    stats = await served.admin.metrics.get_database_stats()
    parts = {item.table_name: item for item in stats.partition_growth}
    log, events = parts["operation_logs"], parts["events"]
    assert log.partition_name.startswith("operation_logs_y")
    assert log.range_start < datetime.now(UTC).isoformat(sep=" ") < log.range_end
    assert (events.range_start, events.range_end) == ("0", "1000000")
    for part in (log, events):
        assert part.total_bytes > 0
        assert part.bytes_per_day > 0
    # The month began some days ago at most; the events began minutes ago, which counts as an hour.
    assert events.bytes_per_day == events.total_bytes * 24
    assert log.bytes_per_day <= log.total_bytes * 24


async def test_the_state_of_the_database_is_in_the_metrics(served: Served) -> None:
    await DatabaseGauges(served.server.application.store).look()
    shown = REGISTRY.get_sample_value
    assert (shown("pilothouse_database_bytes") or 0) > 1 << 20
    assert (shown("pilothouse_database_max_connections") or 0) > 0
    samples = {
        (sample.name, *sample.labels.values()) for metric in REGISTRY.collect() for sample in metric.samples
    }
    assert ("pilothouse_database_bloat_bytes", "containers", "index") in samples
    used = {name[1] for name in samples if name[0] == "pilothouse_database_connections"}
    assert {"pilothouse_system", "pilothouse_maintenance"} <= used
    grown = {name[1] for name in samples if name[0] == "pilothouse_database_partition_growth_bytes_per_day"}
    assert "operation_logs" in grown


async def test_changes_set_aside_are_in_the_metrics(served: Served) -> None:
    database = served.server.database
    look = DatabaseGauges(served.server.application.store).look
    for count in (1, 0):
        async with connection(database.admin_dsn) as admin:
            if count:
                await admin.execute(
                    "INSERT INTO pending_incidents (id, records, record_hashes, events, messages, created_at, "
                    "sqlstate, constraint_name, incident_sequence) VALUES (1, '{}', '{}', '{}', '{}', now(), '', '', 1)"
                )
            else:
                await admin.execute("DELETE FROM pending_incidents")
        await look()
        assert REGISTRY.get_sample_value("pilothouse_pending_incidents") == count


async def test_periodic_work_that_fails_is_shown(served: Served) -> None:
    async def failing() -> None:
        raise ValueError("not foreseen")

    async def found() -> Sequence[pb.PeriodicJob]:
        jobs = (await served.admin.metrics.get_database_stats()).periodic_jobs
        return [job for job in jobs if job.name == "always fails" and job.failures > 1]

    work = PeriodicWork(served.server.application.store, [Periodic("always fails", 0.01, failing)])
    running = asyncio.create_task(work.run())
    try:
        (job,) = await poll_until(found)
    finally:
        await cancel_and_wait(running)
    assert job.last_failure == "ValueError"
    assert job.failing_since.ToNanoseconds() < job.last_failure_time.ToNanoseconds()
    assert not job.HasField("last_success_time")
    # The server's own jobs succeed.
    own = [job for job in (await served.admin.metrics.get_database_stats()).periodic_jobs if not job.failures]
    assert "make partitions ahead" in {job.name for job in own if job.HasField("last_success_time")}


async def test_the_sizes_of_tables_are_returned_largest_first(served: Served) -> None:
    sizes = await served.admin.metrics.get_table_sizes()
    names = [item.table_name for item in sizes]
    assert {"containers", "operation_logs", "container_resource_usage", "container_summary"} <= set(names)
    assert not [item for item in sizes if item.partition_of]
    assert [item.total_bytes for item in sizes] == sorted((item.total_bytes for item in sizes), reverse=True)
    containers = sizes[names.index("containers")]
    assert containers.total_bytes == containers.table_bytes + containers.index_bytes > 0
    assert containers.total_size.endswith("kB")


async def test_partitions_show_how_a_table_grows(served: Served) -> None:
    sizes = await served.admin.metrics.get_table_sizes(include_partitions=True)
    by_name = {item.table_name: item for item in sizes}
    days = [item for item in sizes if item.partition_of == "container_resource_usage"]
    assert len(days) >= 3
    assert by_name["container_resource_usage"].total_bytes == sum(day.total_bytes for day in days)


async def test_only_users_with_a_view_of_the_whole_platform_are_served(served: Served) -> None:
    for client in (served.anna, served.omar):
        with pytest.raises(PilothouseError) as refused:
            await client.metrics.get_database_stats()
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(PilothouseError) as refused:
            await client.metrics.get_table_sizes()
        assert refused.value.metadata["permission"] == "database.get"
