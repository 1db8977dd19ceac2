"""Reads the state of the database itself.

The maintenance login reads it as the owner, because PostgreSQL hides the statistics of tables under row-level security
from all other roles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from pilothouse_server.metrics.model import (
    ColumnStatistics,
    Connections,
    DatabaseStats,
    OldestSnapshot,
    PartitionGrowth,
    PeriodicJob,
    SlowQuery,
    TableBloat,
    TableSize,
)
from pilothouse_server.store.errors import translated
from pilothouse_server.store.maintenance import BLOAT
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

_AS_OWNER = (
    "BEGIN READ ONLY",
    "SET LOCAL ROLE pilothouse_owner",
    "SET LOCAL statement_timeout = '20s'",
)
_DATABASE = text("""
SELECT current_setting('server_version') AS server_version, pg_database_size(current_database()) AS database_bytes,
       CAST(current_setting('max_connections') AS integer) AS max_connections,
       CAST(d.blks_hit AS float8) / nullif(d.blks_hit + d.blks_read, 0) AS cache_hit_ratio,
       d.xact_commit, d.xact_rollback, d.deadlocks, d.temp_bytes, d.stats_reset
FROM pg_stat_database AS d WHERE d.datname = current_database()
""")
_CONNECTIONS = text("""
SELECT CAST(coalesce(usename, '') AS text), coalesce(application_name, ''), coalesce(state, ''), count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND usename IS NOT NULL
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
""")
_COLUMNS = text("""
SELECT tablename, column_name, CAST(n_distinct AS float8) AS n_distinct, CAST(correlation AS float8) AS correlation
FROM database_stats WHERE :table_name = '' OR tablename = :table_name ORDER BY tablename, column_name
""")
_PERIODIC_JOBS = text("""
SELECT name, failures, failing_since, last_failure_at, coalesce(last_failure, ''), last_success_at
FROM periodic_jobs ORDER BY name
""")
# Everybody may read the view, but it fails if its library was not loaded at the server's start; a setting of the
# library shows whether it was. `to_regclass` is needed because PostgreSQL may evaluate the conditions in any order,
# even for other extensions.
_STATEMENTS_VIEW = text("""
SELECT format('%I.pg_stat_statements', n.nspname)
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements' AND current_setting('pg_stat_statements.max', true) IS NOT NULL
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_table_privilege(to_regclass(format('%I.pg_stat_statements', n.nspname)), 'SELECT')
""")
_SIZES = text("""
SELECT t.*, coalesce(s.n_dead_tup, 0) AS dead_rows,
       greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum_at,
       greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze_at
FROM table_sizes AS t
LEFT JOIN pg_stat_all_tables AS s ON s.schemaname = t.schemaname AND s.relname = t.tablename
WHERE :include_partitions OR t.partition_of IS NULL
ORDER BY t.total_bytes DESC, t.tablename
""")


_GROWTH = text("""
WITH bounds AS (
    SELECT 'operation_logs' AS table_name, b.* FROM partition_bounds('operation_logs') AS b
    UNION ALL SELECT 'container_resource_usage', b.* FROM partition_bounds('container_resource_usage') AS b
), parts AS (
    SELECT table_name, partition_name, lower_bound, upper_bound,
           CAST(lower_bound AS timestamptz) AS first_at, least(CAST(upper_bound AS timestamptz), now()) AS last_at
    FROM bounds WHERE CAST(lower_bound AS timestamptz) <= now()
    UNION ALL
    SELECT 'events', b.partition_name, b.lower_bound, b.upper_bound, f.created_at, l.created_at
    FROM partition_bounds('events') AS b
    CROSS JOIN LATERAL (SELECT e.created_at FROM events AS e WHERE e.revision >= CAST(b.lower_bound AS bigint)
                          AND e.revision < CAST(b.upper_bound AS bigint) ORDER BY e.revision LIMIT 1) AS f
    CROSS JOIN LATERAL (SELECT e.created_at FROM events AS e WHERE e.revision >= CAST(b.lower_bound AS bigint)
                          AND e.revision < CAST(b.upper_bound AS bigint) ORDER BY e.revision DESC LIMIT 1) AS l
)
SELECT p.table_name, p.partition_name, p.lower_bound, p.upper_bound, s.bytes,
       CAST(greatest(c.reltuples, 0) AS bigint),
       s.bytes * 86400.0 / greatest(CAST(extract(epoch FROM p.last_at - p.first_at) AS float8), 3600.0)
FROM parts AS p
JOIN pg_class AS c ON c.relname = p.partition_name AND c.relnamespace = CAST('public' AS regnamespace)
CROSS JOIN LATERAL (SELECT pg_total_relation_size(c.oid) AS bytes) AS s
WHERE pg_relation_size(c.oid) > 0
ORDER BY p.table_name, p.first_at, p.partition_name
""")

_SET_ASIDE = text("SELECT count(*) FROM pending_incidents")
# The snapshots that keep VACUUM from removing rows: those of a session, a standby that reports its own
# (hot_standby_feedback), a replication slot, and a prepared transaction. The oldest one of each kind is read. The
# snapshots of VACUUM itself and of this query do not count.
_OLDEST_SNAPSHOTS = text("""
SELECT DISTINCT ON (h.kind) h.kind, coalesce(h.name, '') AS name, coalesce(h.state, '') AS state,
       CAST(age(h.xmin) AS bigint) AS transactions,
       greatest(CAST(extract(epoch FROM clock_timestamp() - h.since) AS float8), 0) AS seconds
FROM (
    SELECT 'session' AS kind, a.application_name AS name, a.state, a.backend_xmin AS xmin, a.xact_start AS since
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'walsender'
      AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
    UNION ALL
    SELECT 'standby', r.application_name, r.state, r.backend_xmin, NULL FROM pg_stat_replication AS r
    UNION ALL
    SELECT 'slot', s.slot_name, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, s.xmin, NULL
    FROM pg_replication_slots AS s
    UNION ALL
    SELECT 'prepared', p.gid, '', p.transaction, p.prepared FROM pg_prepared_xacts AS p
    WHERE p.database = current_database()
) AS h
WHERE h.xmin IS NOT NULL
ORDER BY h.kind, age(h.xmin) DESC, h.since
""")


@asynccontextmanager
async def as_owner(store: Store) -> AsyncIterator[ReadTransaction]:
    """Begins a read by the maintenance login with the role of the owner. Raises Unavailable."""
    with translated():
        async with store.database.maintenance.connect() as connection:
            for statement in _AS_OWNER:
                await connection.command(statement)
            now = (await connection.execute(text("SELECT transaction_timestamp()"))).scalar_one()
            yield ReadTransaction(connection, now)


async def stats(transaction: ReadTransaction, table_name: str, most_queries: int) -> DatabaseStats:
    """Returns the state of the database, with the columns of one table, or of all tables if `table_name` is ''."""
    connection = transaction.connection
    found = (await connection.execute(_DATABASE)).one()
    columns = (await connection.execute(_COLUMNS, {"table_name": table_name})).all()
    jobs = (await connection.execute(_PERIODIC_JOBS)).all()
    return DatabaseStats(
        server_version=found.server_version,
        database_bytes=found.database_bytes,
        max_connections=found.max_connections,
        connections=await connections(transaction),
        cache_hit_ratio=found.cache_hit_ratio,
        committed_transactions=found.xact_commit,
        rolled_back_transactions=found.xact_rollback,
        deadlocks=found.deadlocks,
        temporary_bytes=found.temp_bytes,
        stats_reset_at=found.stats_reset,
        slow_queries=await _slow_queries(transaction, most_queries),
        column_statistics=tuple(ColumnStatistics(*row) for row in columns),
        table_bloat=await table_bloat(transaction),
        partition_growth=await partition_growth(transaction),
        periodic_jobs=tuple(PeriodicJob(*row) for row in jobs),
    )


async def changes_set_aside(transaction: ReadTransaction) -> int:
    """Returns how many committed changes got no revision number and wait for an operator."""
    return int((await transaction.connection.execute(_SET_ASIDE)).scalar_one())


async def oldest_snapshots(transaction: ReadTransaction) -> tuple[OldestSnapshot, ...]:
    """Returns, of each kind, the oldest snapshot that keeps VACUUM from removing rows."""
    return tuple(OldestSnapshot(*row) for row in await transaction.connection.execute(_OLDEST_SNAPSHOTS))


async def table_bloat(transaction: ReadTransaction) -> tuple[TableBloat, ...]:
    """Returns how much of each table and its indexes is empty, most first."""
    found: dict[str, list[int]] = {}
    for row in await transaction.connection.execute(BLOAT):
        sums = found.setdefault(row.root_name, [0, 0, 0, 0])
        at = 2 if row.is_index else 0
        sums[at] += row.bytes
        sums[at + 1] += row.bloat_bytes or 0
    tables = [TableBloat(name, *sums) for name, sums in found.items()]
    return tuple(
        sorted(tables, key=lambda each: (-each.table_bloat_bytes - each.index_bloat_bytes, each.table_name))
    )


async def partition_growth(transaction: ReadTransaction) -> tuple[PartitionGrowth, ...]:
    """Returns the growth of each partition, by table and time."""
    rows = await transaction.connection.execute(_GROWTH)
    return tuple(PartitionGrowth(*row) for row in rows)


async def connections(transaction: ReadTransaction) -> tuple[Connections, ...]:
    """Returns the connections to this database by role, application and state, largest number first."""
    return tuple(Connections(*row) for row in await transaction.connection.execute(_CONNECTIONS))


async def _slow_queries(transaction: ReadTransaction, most: int) -> tuple[SlowQuery, ...] | None:
    view = (await transaction.connection.execute(_STATEMENTS_VIEW)).scalar_one_or_none()
    if view is None:
        return None
    # The catalog returns the name quoted.
    statement = text(
        "SELECT left(s.query, 1000) AS query, s.calls, s.total_exec_time, s.mean_exec_time, s.max_exec_time, s.rows "  # noqa: S608
        f"FROM {view} AS s JOIN pg_database AS d ON d.oid = s.dbid "
        "WHERE d.datname = current_database() ORDER BY s.total_exec_time DESC LIMIT :most"
    )
    rows = await transaction.connection.execute(statement, {"most": most})
    return tuple(
        SlowQuery(
            query=row.query or "",
            calls=row.calls,
            total=timedelta(milliseconds=row.total_exec_time),
            mean=timedelta(milliseconds=row.mean_exec_time),
            longest=timedelta(milliseconds=row.max_exec_time),
            rows=row.rows,
        )
        for row in rows
    )


async def table_sizes(transaction: ReadTransaction, *, include_partitions: bool) -> list[TableSize]:
    """Returns the sizes of tables, largest first."""
    rows: Any = await transaction.connection.execute(_SIZES, {"include_partitions": include_partitions})
    return [
        TableSize(
            table_name=row.tablename,
            partition_of=row.partition_of or "",
            total_size=row.total_size,
            table_size=row.table_size,
            index_size=row.index_size,
            total_bytes=row.total_bytes,
            table_bytes=row.table_bytes,
            index_bytes=row.index_bytes,
            estimated_rows=row.estimated_rows or 0,
            dead_rows=row.dead_rows,
            last_vacuum_at=row.last_vacuum_at,
            last_analyze_at=row.last_analyze_at,
        )
        for row in rows
    ]
