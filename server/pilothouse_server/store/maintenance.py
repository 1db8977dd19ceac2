"""Maintenance: ANALYZE, VACUUM and REINDEX, on schedule and by hand.

Autovacuum does most of it. But it never analyses a partitioned table as a whole, so the planner has no statistics
of it. It leaves rows behind that a long snapshot kept alive. And it never shrinks an index. So a maintenance round
runs the statements that are due:

    ANALYZE     tables that have not been analysed for a period, a partitioned one with its partitions
    VACUUM      tables with dead rows that have not been vacuumed for a period
    REINDEX     indexes of which a share is empty, by an estimate from the planner's statistics (`BLOAT`)

Each statement runs by itself, outside a transaction. No statement makes writers wait for a lock for longer than moments
(REINDEX CONCURRENTLY), and the time that a statement waits for a lock is limited. A failure does not stop the other
statements; the error is raised at the end. A REINDEX that was interrupted leaves an invalid index behind, which
the next round drops.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
from sqlalchemy import TextClause, text

from pilothouse_server.errors import FailedPrecondition, not_found
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import connecting
from pilothouse_server.store.pool import Pool

LOCK_TIMEOUT_MILLISECONDS: Final = 5_000
# Building an index waits for every transaction that began before it.
REINDEX_LOCK_MILLISECONDS: Final = 60_000
STATEMENT_MILLISECONDS: Final = 3_600_000
# Tables with fewer dead rows are left to autovacuum: they waste too little space.
FEWEST_DEAD_ROWS: Final = 50
# A small index is not worth the work: its empty pages are few.
SMALLEST_INDEX_BYTES: Final = 8 << 20
# An index is rebuilt if at least this share of it is empty: it is then at most half as large.
BLOAT_PERCENT: Final = 50.0

_TABLES = text("""
SELECT c.relname AS name, c.relkind = 'p' AS partitioned, c.relispartition AS partition,
       coalesce(s.n_dead_tup, 0) AS dead_rows,
       coalesce(greatest(s.last_analyze, s.last_autoanalyze)
                NOT BETWEEN now() - CAST(:age AS interval) AND now() + interval '1 hour', true) AS analyze_due,
       coalesce(greatest(s.last_vacuum, s.last_autovacuum)
                NOT BETWEEN now() - CAST(:age AS interval) AND now() + interval '1 hour', true) AS vacuum_due
FROM pg_class AS c
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind IN ('r', 'p', 'm')
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname
""")
# The size of each B-tree and table, and the bytes that it would save if it were packed as densely as when it is
# created; NULL if it was never analysed. The estimate assumes 4 bytes for each row's line pointer, a row header of 8
# bytes in an index and 24 in a table, and a page header of 24 bytes. An index page also has 16 bytes at its end, and a
# tenth of it stays free.
BLOAT: Final = text("""
WITH relation AS (
    SELECT c.oid, c.relname, c.relkind, c.reltuples, c.relam, i.indrelid, i.indkey, pg_relation_size(c.oid) AS bytes,
           CAST(current_setting('block_size') AS float8) AS block
    FROM pg_class AS c
    LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind IN ('r', 'm', 'i')
      AND (c.relkind <> 'i' OR c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree'))
), width AS (
    SELECT r.oid, sum((1 - s.null_frac) * s.avg_width) AS bytes, bool_and(s.avg_width IS NOT NULL) AS known
    FROM relation AS r
    JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attribute AS k ON k.attrelid = r.indrelid AND k.attnum = nullif(r.indkey[a.attnum - 1], 0)
    LEFT JOIN pg_class AS t ON t.oid = r.indrelid
    LEFT JOIN pg_stats AS s ON s.schemaname = 'public' AND NOT s.inherited
        AND s.tablename = CASE WHEN k.attname IS NULL THEN r.relname ELSE t.relname END
        AND s.attname = coalesce(k.attname, a.attname)
    GROUP BY r.oid
), packed AS (
    SELECT r.*, CASE WHEN w.known AND r.reltuples >= 0 THEN
        CASE r.relkind
            WHEN 'i' THEN (ceil(r.reltuples * (ceil((8 + w.bytes) / 8) * 8 + 4) / ((r.block - 40) * 0.9)) + 1) * r.block
            ELSE ceil(r.reltuples * (ceil((24 + w.bytes) / 8) * 8 + 4) / (r.block - 24)) * r.block
        END END AS packed_bytes
    FROM relation AS r JOIN width AS w ON w.oid = r.oid
)
SELECT p.relname AS name, p.relkind = 'i' AS is_index,
       coalesce((SELECT r.relname FROM pg_partition_ancestors(coalesce(p.indrelid, p.oid)) AS a(relid)
                 JOIN pg_class AS r ON r.oid = a.relid AND NOT r.relispartition),
                t.relname, p.relname) AS root_name,
       p.bytes, CAST(greatest(p.bytes - p.packed_bytes, 0) AS bigint) AS bloat_bytes
FROM packed AS p LEFT JOIN pg_class AS t ON t.oid = p.indrelid
ORDER BY p.relname
""")
_LEFT_INVALID = text("""
SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = CAST('public' AS regnamespace) AND NOT i.indisvalid AND c.relkind = 'i'
  AND c.relname ~ '_cc(new|old)[0-9]*$'
ORDER BY c.relname
""")


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the maintenance that is due for it.

    `partition` means that it is a partition of another table.
    """

    name: str
    partitioned: bool
    partition: bool
    dead_rows: int
    analyze_due: bool
    vacuum_due: bool


class Maintenance:
    """Maintenance of one database by the maintenance login.

    The login sets the role `owner` for each statement. `report` is called with each statement before it runs, as in
    "ANALYZE public.containers".
    """

    def __init__(
        self, pool: Pool, owner: str = "pilothouse_owner", *, report: Callable[[str], object] = lambda _: None
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._report = report

    async def round(self, period: timedelta, bloat_percent: float = BLOAT_PERCENT) -> list[str]:
        """Runs the maintenance that is due after `period`; returns the statements.

        Raises as `analyze`.
        """
        tables = await self._tables(period)
        statements = [_analyze(each) for each in tables if each.analyze_due and not each.partition]
        statements += [
            _vacuum(each)
            for each in tables
            if each.vacuum_due and each.dead_rows >= FEWEST_DEAD_ROWS and not each.partitioned
        ]
        if bloat_percent > 0:
            statements += await self._rebuilding(bloat_percent)
        return await self._do(statements)

    async def analyze(self, names: Sequence[str] = ()) -> list[str]:
        """Analyses tables by name, or all; returns the statements.

        Raises:
            NotFound: there is no such table.
            Unavailable: the database is unreachable.
            FailedPrecondition: some statements failed; the others are done.
        """
        return await self._do([_analyze(each) for each in await self._chosen(names)])

    async def vacuum(self, names: Sequence[str] = ()) -> list[str]:
        """Vacuums and analyses tables with their partitions.

        Returns and raises as `analyze`.
        """
        return await self._do([_vacuum(each) for each in await self._chosen(names)])

    async def reindex(self, names: Sequence[str] = (), bloat_percent: float = BLOAT_PERCENT) -> list[str]:
        """Rebuilds the indexes of tables, or those of which `bloat_percent` is empty.

        The latter are rebuilt if no table is named. Returns and raises as `analyze`.
        """
        if names:
            chosen = await self._chosen(names)
            return await self._do(
                [f"REINDEX TABLE CONCURRENTLY public.{_quoted(each.name)}" for each in chosen]
            )
        return await self._do(await self._rebuilding(bloat_percent))

    async def _chosen(self, names: Sequence[str]) -> list[Table]:
        tables = await self._tables(timedelta(0))
        by_name = {each.name: each for each in tables}
        for name in names:
            if name not in by_name:
                raise not_found("table", name)
        return [by_name[name] for name in names] or [each for each in tables if not each.partition]

    async def _tables(self, age: timedelta) -> list[Table]:
        rows = await self._ask(_TABLES, {"age": age})
        return [Table(*row) for row in rows]

    async def _rebuilding(self, bloat_percent: float) -> list[str]:
        invalid = [str(row[0]) for row in await self._ask(_LEFT_INVALID, {})]
        statements = [f"DROP INDEX CONCURRENTLY IF EXISTS public.{_quoted(name)}" for name in invalid]
        for row in await self._ask(BLOAT, {}):
            bloated = row.is_index and row.bytes >= SMALLEST_INDEX_BYTES and row.name not in invalid
            if bloated and 100 * (row.bloat_bytes or 0) >= bloat_percent * row.bytes:
                statements.append(f"REINDEX INDEX CONCURRENTLY public.{_quoted(row.name)}")
        return statements

    async def _ask(self, query: TextClause, parameters: dict[str, object]) -> Sequence[Any]:
        with connecting():
            async with self._pool.transaction() as connection:
                await connection.command(f"SET LOCAL ROLE {self._owner}")
                return (await connection.execute(query, parameters)).all()

    async def _do(self, statements: list[str]) -> list[str]:
        failed: dict[str, asyncpg.PostgresError] = {}
        for statement in statements:
            self._report(statement)
            with connecting():
                async with self._alone() as connection:
                    of_index = statement.startswith(("REINDEX", "DROP"))
                    waits = REINDEX_LOCK_MILLISECONDS if of_index else LOCK_TIMEOUT_MILLISECONDS
                    await connection.command(f"SET lock_timeout = {waits}")
                    try:
                        await connection.command(statement)
                    except asyncpg.PostgresError as error:
                        if connection.driver.is_closed():
                            raise
                        failed[statement] = error
        if failed:
            statement, first = next(iter(failed.items()))
            raise FailedPrecondition(
                f"{len(failed)} of {len(statements)} statements failed, the first of them {statement}: code "
                f"{first.sqlstate}; the others are done",
                reason="DATABASE_CARE_FAILED",
            )
        return statements

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        """Yields a connection outside a transaction, as these statements require."""
        async with self._pool.connect() as connection:
            try:
                await connection.command(f"SET ROLE {self._owner}")
                await connection.command(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
                yield connection
            finally:
                # The role and the time limits stay set on the connection, so it must not return to the pool.
                await self._pool.discard(connection)


def _analyze(table: Table) -> str:
    return f"ANALYZE public.{_quoted(table.name)}"


def _vacuum(table: Table) -> str:
    return f"VACUUM (ANALYZE) public.{_quoted(table.name)}"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
