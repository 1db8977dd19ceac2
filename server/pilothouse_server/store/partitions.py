"""Creates partitions ahead and drops old ones, without making a writer wait.

The audit log has a partition for each month, usage samples for each day, events for each million revisions.
There is no default partition, so an insert without its partition fails. Therefore `make_ahead` is called at
start and every ten minutes. It makes enough for 12 months, 14 days and two million revisions. It also makes
those for the months of records that wait to be numbered: a record with a time that is far off waits for a
partition, and causes an immediate call.

The bounds of a partition are read from the catalogue, never from its name (the functions of migration 0007).

Attaching, detaching and dropping need locks that writers also need, on the table and on the tables that its
foreign keys refer to. A statement that waits for such a lock makes every later writer wait behind it. So each
step is a transaction of its own with a `lock_timeout` of 50 ms, and is tried again after a pause. A step that
never succeeds raises `PartitionBusyError`; the completed steps stay, and the next call does the rest:

    mark (a comment) → DETACH CONCURRENTLY → DROP

A crash after the mark leaves an old partition. A crash within DETACH leaves the detach pending, and the next call
finalises it. A crash after DETACH leaves a marked table, which the next call drops. A table that somebody detached by
hand has no mark and is left alone.

Dropping events moves the watch horizon first, in a transaction of its own. A reader of events must therefore
read the horizon *after* the events: if it has passed the reader's position, the events may have a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

import asyncpg
from sqlalchemy import TextClause, text

from pilothouse_server.runtime.backoff import backoff_seconds
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import connecting
from pilothouse_server.store.pool import Pool

Bound = TypeVar("Bound", datetime, int)
Result = TypeVar("Result")
Spacing = Literal["month", "day", "revision"]
# The number of partitions that are made beyond the current one.
AHEAD: Mapping[Spacing, int] = {"month": 12, "day": 14, "revision": 2}

LOCK_TIMEOUT_MILLISECONDS = 50
ATTEMPTS = 60
_FIRST_PAUSE_SECONDS = 0.04
LONGEST_PAUSE_SECONDS = 2.0
REVISIONS_PER_PARTITION = 1_000_000
# lock_not_available, deadlock_detected, object_in_use, and DETACH's error while another detach is pending.
_TRY_AGAIN = frozenset({"55P03", "40P01", "55006", "55000"})
# Another replica has just detached or dropped the partition; the next attempt sees that.
_GONE = "42P01"

_MAKE: dict[Spacing, TextClause] = {
    "month": text("SELECT create_monthly_partitions(:table, CAST(:start AS date), 1)"),
    "day": text("SELECT create_daily_partitions(:table, CAST(:start AS date), 1)"),
    "revision": text("SELECT create_revision_partitions(:table, CAST(:start AS bigint), 1)"),
}
_HEAD = text("SELECT revision FROM stream_head")
# The months of records that wait to be numbered, for example those of a server whose clock is far off.
_PENDING_MONTHS = text(
    "SELECT DISTINCT date_trunc('month', coalesce(r.started_at, p.created_at), 'UTC') "
    "FROM pending_changes AS p, unnest(p.records) AS r LIMIT 100"
)
# Searched in the order of revisions, so that it reads only rows that are then deleted. A time in the future comes from
# a wrong clock: that event is as old as the events around it, so it does not count.
_FIRST_SINCE = text(
    "SELECT revision FROM events "
    "WHERE created_at >= :moment AND created_at <= clock_timestamp() + interval '5 minutes' "
    "ORDER BY revision LIMIT 1"
)
_LAST_BEFORE = text("SELECT revision FROM events WHERE created_at < :moment ORDER BY revision DESC LIMIT 1")
_DELETE_EVENTS = text(
    "DELETE FROM events WHERE revision = ANY (ARRAY("
    "SELECT revision FROM events WHERE revision < :revision ORDER BY revision LIMIT :batch)) RETURNING revision"
)
_BY_TIME = text(
    "SELECT partition_name, CAST(lower_bound AS timestamptz), CAST(upper_bound AS timestamptz), detach_pending"
    " FROM partition_bounds(:table) ORDER BY 3, 1"
)
_BY_REVISION = text(
    "SELECT partition_name, CAST(lower_bound AS bigint), CAST(upper_bound AS bigint), detach_pending"
    " FROM partition_bounds(:table) ORDER BY 3, 1"
)


class PartitionBusyError(Exception):
    """A lock could not be acquired within all attempts.

    No step is half done, so call again later.
    """


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a table is partitioned."""

    table: str
    spacing: Spacing


AUDIT_LOG = Scheme("operation_logs", "month")
EVENTS = Scheme("events", "revision")
OWN = (AUDIT_LOG, EVENTS)


@dataclass(frozen=True, slots=True)
class Partition(Generic[Bound]):
    """One partition: it contains keys with `lower <= key < upper`.

    None is no bound. Times are in UTC.
    """

    name: str
    lower: Bound | None
    upper: Bound | None
    detach_pending: bool


class Partitions:
    """The partitions of one database, maintained by the maintenance login.

    The login sets the role `owner` in each step.
    """

    def __init__(
        self,
        pool: Pool,
        owner: str = "pilothouse_owner",
        *,
        of_nouns: Iterable[Scheme] = (),
        attempts: int = ATTEMPTS,
    ) -> None:
        """Takes the partitioned tables of nouns as `of_nouns`.

        Their partitions are made with the store's own.
        """
        self._pool = pool
        self._schemes = (*OWN, *of_nouns)
        self._owner = owner
        self._attempts = attempts

    async def make_ahead(self) -> int:
        """Makes the missing partitions of every table; returns the number made.

        Raises PartitionBusyError; the tables before the one that failed are then complete.
        """
        return sum([await self._make_ahead(scheme) for scheme in self._schemes])

    async def by_time(self, table: str) -> list[Partition[datetime]]:
        """Returns the partitions of a table that is partitioned by time, oldest first."""
        rows = await self._list(table, _BY_TIME)
        return [Partition(row[0], _utc(row[1]), _utc(row[2]), row[3]) for row in rows]

    async def by_revision(self, table: str) -> list[Partition[int]]:
        """Returns the partitions of a table that is partitioned by revision, oldest first."""
        return [Partition(*row) for row in await self._list(table, _BY_REVISION)]

    async def drop_older(self, scheme: Scheme, before: datetime) -> list[str]:
        """Drops the partitions of a table by time that end at or before `before`.

        Returns the names of the dropped partitions, oldest first, including those that an earlier call left
        behind. With partitions of the audit log, operations older than the rest of the log are deleted too. A
        partition that cannot be dropped does not stop the others: its error, PartitionBusyError or PostgreSQL's
        own, is raised after they are dropped.
        """
        old = [partition for partition in await self.by_time(scheme.table) if _ends_by(partition, before)]
        return await self.drop_named(scheme, [partition.name for partition in old])

    async def drop_named(self, scheme: Scheme, names: list[str]) -> list[str]:
        """Drops these partitions; returns and raises as `drop_older`."""
        dropped = await self._drop(scheme.table, names)
        if scheme is AUDIT_LOG:
            remaining = await self.by_time(scheme.table)
            if remaining and remaining[0].lower is not None:
                await self._trim_operations(remaining[0].lower)
        return dropped

    async def drop_events_below(self, revision: int) -> list[str]:
        """Drops the events below `revision`; the horizon moves there first.

        Partitions with only such events are dropped. In the next partition the rows are deleted, one batch in each
        transaction. Returns the names of the dropped partitions, oldest first, including those that an earlier call
        left behind. Raises as `drop_older`.
        """
        old = [
            partition for partition in await self.by_revision(EVENTS.table) if _ends_by(partition, revision)
        ]
        await self._move_horizon(revision)
        dropped = await self._drop(EVENTS.table, [partition.name for partition in old])
        await self._delete_events_below(revision)
        return dropped

    async def first_event_since(self, moment: datetime) -> int:
        """Returns the revision below which every event is older than `moment`.

        It is for `drop_events_below`.
        """
        async with self._transaction() as connection:
            first = (await connection.execute(_FIRST_SINCE, {"moment": moment})).scalar_one_or_none()
            if first is None:
                last = (await connection.execute(_LAST_BEFORE, {"moment": moment})).scalar_one_or_none()
                first = 0 if last is None else last + 1
        return int(first)

    async def _delete_events_below(self, revision: int, batch: int = 5_000) -> None:
        async def delete(connection: Connection) -> int:
            deleted = await connection.execute(_DELETE_EVENTS, {"revision": revision, "batch": batch})
            return len(deleted.all())

        while await self._step(delete) == batch:
            continue

    async def _drop(self, table: str, names: list[str]) -> list[str]:
        failures: list[Exception] = []

        async def alone(step: Awaitable[object]) -> None:
            try:
                await step
            except (PartitionBusyError, asyncpg.PostgresError) as error:
                failures.append(error)

        for name in names:
            await alone(self._detach(table, name, names))
        detached = await self._detached(table)
        for name in detached:
            await alone(self._step(_statement(f"DROP TABLE IF EXISTS public.{_quoted(name)}")))
        if failures:
            raise failures[0]
        return [*(name for name in detached if name not in names), *names]

    async def _make_ahead(self, scheme: Scheme) -> int:
        async with self._transaction() as connection:
            now = _utc((await connection.execute(text("SELECT now()"))).scalar_one())
            revision = (
                await connection.execute(text("SELECT revision + 1 FROM stream_head"))
            ).scalar_one_or_none()
        assert now is not None
        present: list[Partition[Any]] = [
            *(
                await self.by_revision(scheme.table)
                if scheme.spacing == "revision"
                else await self.by_time(scheme.table)
            )
        ]
        made = 0
        for start in [*_starts(scheme, now, revision), *await self._wanted(scheme)]:
            if any(_holds(partition, start) for partition in present):
                continue
            value = start.date() if isinstance(start, datetime) else start

            async def make(connection: Connection, value: object = value) -> int:
                parameters = {"table": scheme.table, "start": value}
                return int((await connection.execute(_MAKE[scheme.spacing], parameters)).scalar_one() or 0)

            made += await self._step(make)
        return made

    async def _wanted(self, scheme: Scheme) -> list[datetime]:
        """Returns the beginning of each month that records wait for."""
        if scheme is not AUDIT_LOG:
            return []
        async with self._transaction() as connection:
            return [month.astimezone(UTC) for month in (await connection.execute(_PENDING_MONTHS)).scalars()]

    async def _list(self, table: str, query: TextClause) -> Sequence[Any]:
        async with self._transaction() as connection:
            return (await connection.execute(query, {"table": table})).all()

    async def _detached(self, table: str) -> list[str]:
        async with self._transaction() as connection:
            rows = await connection.execute(
                text("SELECT partition_name FROM detached_partitions(:table)"), {"table": table}
            )
            return [str(name) for name in rows.scalars()]

    async def _move_horizon(self, revision: int) -> None:
        async def move(connection: Connection) -> None:
            await connection.execute(
                text(
                    "UPDATE stream_head SET oldest_revision = least(:revision, revision + 1) "
                    "WHERE oldest_revision < least(:revision, revision + 1)"
                ),
                {"revision": revision},
            )

        await self._step(move)

    async def _detach(self, table: str, name: str, to_be_dropped: list[str]) -> None:
        async def mark(connection: Connection, partition: str) -> None:
            await connection.command(
                f"COMMENT ON TABLE public.{_quoted(partition)} IS 'Was a partition of {table}; to be dropped.'"
            )

        async def detach(connection: Connection) -> None:
            # Read again at each attempt, because another replica may be doing the same work.
            rows = await connection.execute(
                text("SELECT partition_name, detach_pending FROM partition_bounds(:table)"), {"table": table}
            )
            attached = {str(row[0]): bool(row[1]) for row in rows}
            # An interrupted detach prevents every other one, so pending ones are finalised first.
            for pending in (other for other, detach_pending in attached.items() if detach_pending):
                if pending in to_be_dropped:
                    await mark(connection, pending)
                await connection.command(
                    f"ALTER TABLE public.{table} DETACH PARTITION public.{_quoted(pending)} FINALIZE"
                )
            if attached.get(name) is False:
                await mark(connection, name)
                await connection.command(
                    f"ALTER TABLE public.{table} DETACH PARTITION public.{_quoted(name)} CONCURRENTLY"
                )

        await self._step(detach, autocommit=True)

    async def _trim_operations(self, before: datetime, batch: int = 5_000) -> None:
        """Deletes the operations of dropped log records.

        Each batch has its own transaction, so that no lock is held for long.
        """

        async def trim(connection: Connection) -> int:
            result = await connection.execute(
                text(
                    "DELETE FROM operations WHERE operation_id IN (SELECT operation_id FROM operations"
                    " WHERE created_at < :before ORDER BY created_at LIMIT :batch) RETURNING operation_id"
                ),
                {"before": before, "batch": batch},
            )
            return len(result.all())

        while await self._step(trim) == batch:
            continue

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Yields a connection in a transaction with the owner's role.

        Errors of its statements are not translated, because the caller may retry; a failure to connect is.
        """
        async with AsyncExitStack() as stack:
            with connecting():
                connection = await stack.enter_async_context(self._pool.transaction())
            await connection.command(f"SET LOCAL ROLE {self._owner}")
            yield connection

    async def _step(
        self, work: Callable[[Connection], Awaitable[Result]], *, autocommit: bool = False
    ) -> Result:
        """Runs `work` under the lock timeout, again and again until it gets its locks."""
        for attempt in range(self._attempts):
            if attempt:
                # Pauses grow and are random, so that two replicas do not collide at every attempt.
                await asyncio.sleep(backoff_seconds(attempt, _FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
            try:
                if autocommit:
                    return await self._alone(work)
                async with self._transaction() as connection:
                    await connection.command(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}")
                    return await work(connection)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _TRY_AGAIN and not (autocommit and error.sqlstate == _GONE):
                    raise
        raise PartitionBusyError(f"no lock within {self._attempts} attempts; the next run tries again")

    async def _alone(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Runs `work` outside a transaction, as DETACH CONCURRENTLY requires."""
        async with AsyncExitStack() as stack:
            with connecting():
                connection = await stack.enter_async_context(self._pool.connect())
            try:
                await connection.command(f"SET ROLE {self._owner}")
                await connection.command(f"SET lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}")
                return await work(connection)
            finally:
                # The role and the time limit stay set on the connection, so it must not return to the pool.
                await self._pool.discard(connection)


def _statement(sql: str) -> Callable[[Connection], Awaitable[None]]:
    async def execute(connection: Connection) -> None:
        await connection.command(sql)

    return execute


def _starts(scheme: Scheme, now: datetime, revision: int | None) -> list[datetime | int]:
    """Returns the beginning of each required partition: the current and later ones."""
    steps = range(AHEAD[scheme.spacing] + 1)
    if scheme.spacing == "revision":
        first = (revision or 0) // REVISIONS_PER_PARTITION
        return [(first + step) * REVISIONS_PER_PARTITION for step in steps]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if scheme.spacing == "day":
        return [midnight + timedelta(days=step) for step in steps]
    months = [now.year * 12 + now.month - 1 + step for step in steps]
    return [midnight.replace(year=month // 12, month=month % 12 + 1, day=1) for month in months]


def _holds(partition: Partition[Any], key: datetime | int) -> bool:
    return (partition.lower is None or partition.lower <= key) and (
        partition.upper is None or key < partition.upper
    )


def _ends_by(partition: Partition[Bound], limit: Bound) -> bool:
    return partition.upper is not None and partition.upper <= limit


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
