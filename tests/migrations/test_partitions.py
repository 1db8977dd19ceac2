"""Partitions: created ahead and only once, found by their bounds under any name, dropped without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_server.metrics.tables import USAGE
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.partitions import (
    AUDIT_LOG,
    EVENTS,
    OWN,
    PartitionBusyError,
    Partitions,
)
from pilothouse_server.store.pool import Pool
from tests.conftest import Database, number_changes
from tests.identity.server import settings_of
from tests.migrations.filling import fill

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LATER = LONG_AGO + timedelta(days=10)


@pytest_asyncio.fixture(loop_scope="session")
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Yields the maintenance role's pool, as the server has it."""
    pools = Pools.connect(settings_of(database))
    yield pools.maintenance
    await pools.close()


@pytest.fixture
def partitions(pool: Pool) -> Partitions:
    return Partitions(pool, of_nouns=(USAGE,))


async def _log(owner: asyncpg.Connection, moment: datetime, sequence: int) -> str:
    """Writes a log record at `moment`; returns the partition that it went to."""
    found: str = await owner.fetchval(
        """INSERT INTO operation_logs (action, resource_type, started_at, sequence, record_hash, mark)
        VALUES ('get', 'container', $1, $2, sha256(''), int8send($2)) RETURNING tableoid::regclass::text""",
        moment,
        sequence,
    )
    return found


async def _names(owner: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await owner.fetch("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")}


@pytest.mark.usefixtures("promised_partitions")
async def test_the_migrations_create_enough_partitions_ahead(partitions: Partitions) -> None:
    assert await partitions.make_ahead() == 0
    now = datetime.now(UTC)
    months = await partitions.by_time(AUDIT_LOG.table)
    days = await partitions.by_time(USAGE.table)
    revisions = await partitions.by_revision(EVENTS.table)
    assert months[-1].upper is not None
    assert days[-1].upper is not None
    assert months[-1].upper > now + timedelta(days=365)
    assert days[-1].upper > now + timedelta(days=14)
    assert revisions[-1].upper == 3_000_000
    for table in (scheme.table for scheme in (*OWN, USAGE)):
        for earlier, later in pairwise(await _bounds(partitions, table)):
            assert earlier[1] == later[0]


@pytest.mark.usefixtures("promised_partitions")
async def test_missing_partitions_are_created_again(database: Database, partitions: Partitions) -> None:
    before = {scheme.table: await _bounds(partitions, scheme.table) for scheme in (*OWN, USAGE)}
    async with database.owner() as owner:
        for name in (
            *(one.name for one in (await partitions.by_time(AUDIT_LOG.table))[4:6]),
            (await partitions.by_time(USAGE.table))[-1].name,
            "events_r1000000",
        ):
            await owner.execute(f"DROP TABLE {name}")
    assert await partitions.make_ahead() == 4
    assert {scheme.table: await _bounds(partitions, scheme.table) for scheme in (*OWN, USAGE)} == before
    assert await partitions.make_ahead() == 0


async def _bounds(partitions: Partitions, table: str) -> list[tuple[Any, Any]]:
    listed: list[Any] = [
        *(await (partitions.by_revision(table) if table == EVENTS.table else partitions.by_time(table)))
    ]
    return [(one.lower, one.upper) for one in listed]


async def test_events_never_run_out_of_partitions(database: Database, partitions: Partitions) -> None:
    """At any position of the head, two more partitions exist than the one being written."""
    async with database.owner() as owner, database.system() as system:
        for head in (999_998, 999_999, 2_500_000):
            await owner.execute("UPDATE stream_head SET revision = $1", head)
            await partitions.make_ahead()
            listed = await partitions.by_revision(EVENTS.table)
            assert listed[-1].upper == ((head + 1) // 1_000_000 + 3) * 1_000_000
            event = '[{"resource_type": "x", "resource_id": 1, "resource_name": "x", "kind": "added"}]'
            await system.execute("SELECT put_changes('[]', '{}', $1::text::jsonb, ARRAY[''::bytea])", event)
            await number_changes(system)
            assert await owner.fetchval("SELECT max(revision) FROM events") == head + 1


async def test_a_new_partition_is_protected_and_covers_whole_utc_days(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("SET timezone = 'Asia/Shanghai'")
        assert (
            await owner.fetchval("SELECT create_monthly_partitions('operation_logs', '2031-02-17', 2)") == 2
        )
        assert (
            await owner.fetchval("SELECT create_monthly_partitions('operation_logs', '2031-03-01', 1)") == 0
        )
        assert (
            await owner.fetchval(
                "SELECT create_daily_partitions('container_resource_usage', '2031-02-28', 2)"
            )
            == 2
        )
        last = datetime(2031, 2, 28, 23, 59, 59, 999999, tzinfo=UTC)
        assert await _log(owner, last, 1) == "operation_logs_y2031m02"
        assert await _log(owner, last + timedelta(microseconds=1), 2) == "operation_logs_y2031m03"
        row = await owner.fetchrow(
            """SELECT relrowsecurity, relforcerowsecurity, has_any_column_privilege('pilothouse_app', oid, 'SELECT'),
            has_any_column_privilege('pilothouse_system', oid, 'SELECT'), obj_description(oid)
            FROM pg_class WHERE relname = 'container_resource_usage_y2031m02d28'"""
        )
        assert row is not None
        assert tuple(row)[:4] == (True, True, False, False)
        assert "2031-02-28" in row[4]


async def test_a_name_that_is_taken_makes_the_new_name_longer(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("CREATE TABLE operation_logs_y2031m01 (mine int)")
        assert (
            await owner.fetchval("SELECT create_monthly_partitions('operation_logs', '2031-01-01', 1)") == 1
        )
        assert await _log(owner, datetime(2031, 1, 5, tzinfo=UTC), 1) == "operation_logs_y2031m01_2"


async def _set_traps(owner: asyncpg.Connection) -> None:
    """Creates misleading names: code that reads names drops the wrong ones or none (the seed's function did)."""
    await owner.execute("""
        CREATE TABLE operation_logs_y2019m12 (precious int);
        CREATE TABLE operation_logs_archive_y2019m12 (precious int);
        CREATE TABLE operation_logs_y2019m11 (LIKE operation_logs);
        CREATE TABLE other_logs (started_at timestamptz NOT NULL) PARTITION BY RANGE (started_at);
        CREATE TABLE operation_logs_y2018m01 PARTITION OF other_logs FOR VALUES FROM ('2018-01-01') TO ('2018-02-01');
        SELECT create_monthly_partitions('operation_logs', '2020-03-01', 1);
        SELECT create_monthly_partitions('operation_logs', '2020-04-01', 1);
        ALTER TABLE operation_logs_y2020m03 RENAME TO operation_logs_y2999m01;
        ALTER TABLE operation_logs_y2020m04 RENAME TO "Somebody's ""own"" table";
        SELECT create_monthly_partitions('operation_logs', '2040-01-01', 1);
        ALTER TABLE operation_logs_y2040m01 RENAME TO operation_logs_y1999m01;
    """)


_OLD_BY_BOUNDS = ["operation_logs_y2999m01", 'Somebody\'s "own" table']
_TRAPS = {
    "operation_logs_y2019m12",
    "operation_logs_archive_y2019m12",
    "operation_logs_y2019m11",
    "operation_logs_y2018m01",
    "operation_logs_y1999m01",
}


async def test_old_partitions_are_found_by_their_bounds_not_their_names(
    database: Database, partitions: Partitions
) -> None:
    async with database.owner() as owner:
        await _set_traps(owner)
        before = await _names(owner)
        assert await partitions.drop_older(AUDIT_LOG, datetime(2021, 1, 1, tzinfo=UTC)) == _OLD_BY_BOUNDS
        assert before - await _names(owner) == set(_OLD_BY_BOUNDS)
        assert await _names(owner) >= _TRAPS


async def test_the_seeds_function_also_uses_bounds(database: Database) -> None:
    async with database.owner() as owner:
        await _set_traps(owner)
        before = await _names(owner)
        assert await owner.fetchval("SELECT drop_old_partitions('operation_logs', 24)") == 2
        assert before - await _names(owner) == set(_OLD_BY_BOUNDS)
        assert await owner.fetchval("SELECT drop_old_partitions('operation_logs', 24)") == 0
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await owner.fetchval("SELECT drop_old_partitions('operation_logs', -1)")


async def test_a_partition_is_old_only_if_its_end_is(database: Database, partitions: Partitions) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 2)")
    assert await partitions.drop_older(AUDIT_LOG, datetime(2020, 1, 31, 23, tzinfo=UTC)) == []
    assert await partitions.drop_older(AUDIT_LOG, datetime(2020, 2, 29, tzinfo=UTC)) == [
        "operation_logs_y2020m01"
    ]
    assert (await partitions.by_time(AUDIT_LOG.table))[0].name == "operation_logs_y2020m02"


async def test_operations_are_dropped_with_the_log_and_history_stays(
    database: Database, partitions: Partitions
) -> None:
    async with database.owner() as owner:
        await fill(owner)
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 1)")
        await owner.execute("UPDATE operations SET created_at = '2020-01-15' WHERE namespace_id = 1")
        await partitions.drop_older(AUDIT_LOG, datetime(2020, 2, 1, tzinfo=UTC))
        assert [row[0] for row in await owner.fetch("SELECT namespace_id FROM operations")] == [2]
        history = await owner.fetch(
            "SELECT operation_id IS NULL FROM container_status_history ORDER BY namespace_id"
        )
        assert [row[0] for row in history] == [True, False]


async def test_usage_is_dropped_by_the_day(database: Database, partitions: Partitions) -> None:
    async with database.owner() as owner:
        await fill(owner)
        first = (await partitions.by_time(USAGE.table))[0]
        assert first.upper is not None
        assert await partitions.drop_older(USAGE, first.upper - timedelta(seconds=1)) == []
        assert await partitions.drop_older(USAGE, first.upper) == [first.name]
        assert await owner.fetchval("SELECT count(*) FROM container_resource_usage") == 2


async def test_a_partition_that_cannot_be_dropped_does_not_keep_others(
    database: Database, partitions: Partitions
) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_daily_partitions('container_resource_usage', '2020-01-01', 2)")
        made = await partitions.by_time(USAGE.table)
        old = [each.name for each in made if each.upper is not None and each.upper <= LATER]
        assert len(old) > 1
        # A user's view depends on the first partition.
        await owner.execute(f"CREATE VIEW kept AS SELECT * FROM {old[0]}")
    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        await partitions.drop_older(USAGE, LATER)
    async with database.owner() as owner:
        assert await _names(owner) & set(old) == {old[0]}
        await owner.execute("DROP VIEW kept")
    assert await partitions.drop_older(USAGE, LATER) == [old[0]]


async def test_the_horizon_moves_before_events_are_dropped(
    database: Database, partitions: Partitions
) -> None:
    async with database.owner() as owner:
        await owner.execute("UPDATE stream_head SET revision = 1500000")
        assert await partitions.drop_events_below(999_999) == []
        assert await owner.fetchval("SELECT oldest_revision FROM stream_head") == 999_999
        assert await partitions.drop_events_below(1_400_000) == ["events_r0"]
        assert await owner.fetchval("SELECT oldest_revision FROM stream_head") == 1_400_000
        # The horizon never goes back.
        assert await partitions.drop_events_below(1_000_000) == []
        assert await owner.fetchval("SELECT oldest_revision FROM stream_head") == 1_400_000
        assert [one.lower for one in await partitions.by_revision(EVENTS.table)] == [1_000_000, 2_000_000]


async def test_events_are_dropped_by_time_also_in_the_current_partition(
    database: Database, partitions: Partitions
) -> None:
    async with database.owner() as owner:
        # The event of a clock that was two years ahead does not show its age.
        times = [timedelta(0), timedelta(days=1), timedelta(days=730), timedelta(days=2), timedelta(days=3)]
        await owner.executemany(
            """INSERT INTO events (revision, resource_type, resource_id, resource_name, kind, message, created_at)
            VALUES ($1, 'x', 1, 'x', 'added', '', $2)""",
            [(number, datetime.now(UTC) - timedelta(days=5) + ago) for number, ago in enumerate(times, 10)],
        )
        await owner.execute("UPDATE stream_head SET revision = 14")

        async def kept_since(days: float) -> list[int]:
            first = await partitions.first_event_since(datetime.now(UTC) - timedelta(days=days))
            assert await partitions.drop_events_below(first) == []
            assert await owner.fetchval("SELECT oldest_revision FROM stream_head") == first
            return [row[0] for row in await owner.fetch("SELECT revision FROM events ORDER BY 1")]

        assert await kept_since(6) == [10, 11, 12, 13, 14]
        assert await kept_since(4.5) == [11, 12, 13, 14]
        assert await kept_since(3.5) == [13, 14]
        # No event is younger, so the next event is the first that is kept.
        assert await kept_since(1) == []
        assert await owner.fetchval("SELECT oldest_revision FROM stream_head") == 15


async def test_unknown_tables_have_no_partitions(partitions: Partitions) -> None:
    assert await partitions.by_time("no_such_table") == []
    assert await partitions.by_time("users") == []


async def test_a_held_lock_is_waited_for_in_short_attempts(database: Database, pool: Pool) -> None:
    """While a long transaction holds the table, others continue to write.

    If no attempt succeeds, the drop raises an error that gives the reason.
    """
    patient = Partitions(pool, of_nouns=(USAGE,))
    hasty = Partitions(pool, of_nouns=(USAGE,), attempts=2)
    async with database.owner() as owner, database.owner() as reader, database.owner() as writer:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 1)")
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("SELECT count(*) FROM operation_logs")
        with pytest.raises(PartitionBusyError):
            await hasty.drop_older(AUDIT_LOG, datetime(2020, 2, 1, tzinfo=UTC))
        dropping = asyncio.create_task(patient.drop_older(AUDIT_LOG, datetime(2020, 2, 1, tzinfo=UTC)))
        await writer.execute("SET lock_timeout = '10s'")
        for sequence in range(20):
            await _log(writer, datetime.now(UTC), sequence)
        assert not dropping.done()
        await transaction.rollback()
        assert await dropping == ["operation_logs_y2020m01"]
        assert await owner.fetchval("SELECT to_regclass('operation_logs_y2020m01')") is None


async def test_making_partitions_gives_way_to_writers(database: Database, pool: Pool) -> None:
    """A partition refers to `users`, so none can be created while a transaction writes there.

    No writer waits for the attempt.
    """
    async with database.owner() as owner, database.system() as writer:
        # Create the partitions of a day that has begun since the template was made.
        await Partitions(pool, of_nouns=(USAGE,)).make_ahead()
        last = (await Partitions(pool, of_nouns=(USAGE,)).by_time(AUDIT_LOG.table))[-1].name
        await owner.execute(f"DROP TABLE {last}")
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE users SET updated_at = now()")
        with pytest.raises(PartitionBusyError):
            await Partitions(pool, of_nouns=(USAGE,), attempts=2).make_ahead()
        assert last not in await _names(owner)
        await transaction.commit()
        assert await Partitions(pool, of_nouns=(USAGE,)).make_ahead() == 1


@pytest.mark.parametrize(
    "crash",
    [
        # After the mark, before the detach.
        "COMMENT ON TABLE operation_logs_y2020m01 IS 'Was a partition of operation_logs; to be dropped.'",
        # After the detach, before the drop.
        """COMMENT ON TABLE operation_logs_y2020m01 IS 'Was a partition of operation_logs; to be dropped.';
        ALTER TABLE operation_logs DETACH PARTITION operation_logs_y2020m01""",
    ],
)
async def test_an_interrupted_drop_is_completed(
    database: Database, partitions: Partitions, crash: str
) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 1)")
        await owner.execute(crash)
        assert await partitions.drop_older(AUDIT_LOG, datetime(2020, 2, 1, tzinfo=UTC)) == [
            "operation_logs_y2020m01"
        ]
        assert await owner.fetchval("SELECT to_regclass('operation_logs_y2020m01')") is None


async def test_an_interrupted_detach_is_finished(database: Database, partitions: Partitions) -> None:
    """If it stayed pending, it would prevent the detach of every other partition, permanently."""
    async with database.owner() as owner, database.owner() as reader:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 2)")
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("SELECT count(*) FROM operation_logs")
        await owner.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await owner.execute(
                "ALTER TABLE operation_logs DETACH PARTITION operation_logs_y2020m02 CONCURRENTLY"
            )
        await transaction.rollback()
        assert [one.name for one in await partitions.by_time(AUDIT_LOG.table) if one.detach_pending] == [
            "operation_logs_y2020m02"
        ]
        dropped = await partitions.drop_older(AUDIT_LOG, datetime(2020, 3, 1, tzinfo=UTC))
        assert sorted(dropped) == ["operation_logs_y2020m01", "operation_logs_y2020m02"]
        assert not {name for name in await _names(owner) if name.startswith("operation_logs_y2020")}


async def test_a_partition_detached_by_hand_is_left_alone(database: Database, partitions: Partitions) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 1)")
        await owner.execute("ALTER TABLE operation_logs DETACH PARTITION operation_logs_y2020m01")
        assert await partitions.drop_older(AUDIT_LOG, datetime(2020, 2, 1, tzinfo=UTC)) == []
        assert "operation_logs_y2020m01" in await _names(owner)


@pytest.mark.usefixtures("promised_partitions")
async def test_two_replicas_can_create_and_drop_partitions_in_parallel(
    database: Database, pool: Pool
) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2020-01-01', 2)")
        for partition in (await Partitions(pool, of_nouns=(USAGE,)).by_time(USAGE.table))[-3:]:
            await owner.execute(f"DROP TABLE {partition.name}")
    limit = datetime(2020, 3, 1, tzinfo=UTC)
    made = await asyncio.gather(*(Partitions(pool, of_nouns=(USAGE,)).make_ahead() for _ in range(2)))
    assert sum(made) == 3
    assert await Partitions(pool, of_nouns=(USAGE,)).make_ahead() == 0
    dropped = await asyncio.gather(
        *(Partitions(pool, of_nouns=(USAGE,)).drop_older(AUDIT_LOG, limit) for _ in range(2))
    )
    assert {name for names in dropped for name in names} == {
        "operation_logs_y2020m01",
        "operation_logs_y2020m02",
    }


async def test_creating_in_december_reaches_into_the_next_year(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', $1, 3)", date(2031, 12, 9))
        assert await _log(owner, datetime(2032, 2, 29, tzinfo=UTC), 1) == "operation_logs_y2032m02"
