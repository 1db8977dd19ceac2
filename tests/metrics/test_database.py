"""The state of the database, for who may see the whole platform."""

from __future__ import annotations

import grpc
import pytest

from pilothouse_client.errors import PilothouseError
from tests.conftest import connection
from tests.metrics.served import Served


async def test_the_state_of_the_database_is_answered(served: Served) -> None:
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


async def test_columns_of_every_table_are_answered_where_none_is_named(served: Served) -> None:
    async with served.server.database.owner() as owner:
        await owner.execute("ANALYZE containers, namespaces")
    stats = await served.admin.metrics.get_database_stats()
    assert {"containers", "namespaces"} <= {item.table_name for item in stats.column_statistics}


async def test_slow_statements_are_told_where_they_are_counted(served: Served) -> None:
    before = await served.admin.metrics.get_database_stats()
    assert (before.slow_queries_available, len(before.slow_queries)) == (False, 0)
    async with connection(served.server.database.admin_dsn) as admin:
        await admin.execute("CREATE EXTENSION pg_stat_statements")
    await served.rows("SELECT count(*) FROM containers WHERE name = 'nothing'")
    stats = await served.admin.metrics.get_database_stats(slow_query_limit=100)
    assert stats.slow_queries_available
    assert 0 < len(stats.slow_queries) <= 100
    times = [item.total_duration.ToTimedelta() for item in stats.slow_queries]
    assert times == sorted(times, reverse=True)
    assert all(item.calls > 0 and item.query for item in stats.slow_queries)
    few = await served.admin.metrics.get_database_stats(slow_query_limit=1)
    assert len(few.slow_queries) == 1


async def test_the_sizes_of_tables_are_answered_largest_first(served: Served) -> None:
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
    assert len(days) >= 14
    assert by_name["container_resource_usage"].total_bytes == sum(day.total_bytes for day in days)


async def test_only_who_may_see_the_whole_platform_may_ask(served: Served) -> None:
    for client in (served.anna, served.omar):
        with pytest.raises(PilothouseError) as refused:
            await client.metrics.get_database_stats()
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(PilothouseError) as refused:
            await client.metrics.get_table_sizes()
        assert refused.value.metadata["permission"] == "database.get"
