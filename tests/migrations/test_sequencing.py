"""The sequencer: order, completeness, no stranded rows.

Each control breaks one of its rules and is detected.
"""

from __future__ import annotations

import asyncio
import json
import random
from datetime import datetime

import asyncpg
import pytest

from pilothouse_server.store import audit_records
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.partitions import Partitions
from tests.conftest import Database, connection
from tests.identity.server import settings_of
from tests.migrations.sequencing import (
    Environment,
    drain,
    event,
    numbering_faults,
    put,
    record,
    record_hash,
    sequence,
)
from tests.waiting import within

WRITERS = 8
CHANGES = 15


async def _campaign(environment: Environment, *, kills: int = 0) -> list[str]:
    """Runs writers and two sequencers concurrently, numbers the rest, and returns the faults."""
    done = asyncio.Event()
    async with connection(environment.database.admin_dsn) as admin:
        async with asyncio.TaskGroup() as group:
            for seed in (1, 2):
                group.create_task(environment.number(seed, done))
            writing = [group.create_task(environment.write(seed, CHANGES)) for seed in range(WRITERS)]
            choose = random.Random(0)
            while kills and not all(task.done() for task in writing):
                pids = await admin.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE usename = 'pilothouse_system' "
                    "AND datname = current_database() AND state <> 'idle'"
                )
                if pids:
                    await admin.execute("SELECT pg_terminate_backend($1)", choose.choice(pids)[0])
                    kills -= 1
            await asyncio.wait(writing)
            done.set()
        await drain(admin)
        return await environment.faults()


async def test_order_holds_under_writers_sequencers_and_kills(database: Database) -> None:
    environment = Environment(database)
    await environment.prepare()
    assert await _campaign(environment, kills=25) == []
    assert len(environment.committed) > WRITERS


async def test_a_call_returns_what_it_numbered(database: Database) -> None:
    environment = Environment(database)
    await environment.prepare()
    assert await _campaign(environment) == []
    async with database.system() as system:
        stored = {row["revision"]: row for row in await system.fetch("SELECT * FROM events")}
    revisions = [row["revision"] for row in environment.returned]
    assert len(set(revisions)) == len(revisions), "no event is returned twice"
    for row in environment.returned:
        kept = stored[row["revision"]]
        assert [row[name] for name in ("message", "kind", "pending_id", "mark", "resource_name")] == [
            kept[name] for name in ("message", "kind", "pending_id", "mark", "resource_name")
        ]


async def test_a_batch_may_end_anywhere_and_the_log_continues(database: Database) -> None:
    async with database.system() as system:
        for number in range(7):
            records = [record(number, resource_name=f"r{each}") for each in range(number % 3)]
            await put(system, records, [(event(number), b"1:1")] * (number % 2))
        while (await sequence(system, 2))[-1]["more"]:
            assert await numbering_faults(system) == []
        head = await system.fetchrow("SELECT * FROM stream_head")
        assert head is not None
        assert (head["audit_sequence"], head["revision"]) == (6, 3)


async def _wait_until_blocked(observer: asyncpg.Connection, pid: int, task: asyncio.Task[object]) -> None:
    """Returns once the task's backend waits for a lock, or the task has ended."""
    async with within(30):
        blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0 FROM pg_sleep(0.001)"
        while not task.done() and not await observer.fetchval(blocked, pid):
            pass


async def _two_change_one_object(database: Database, *, id_before_lock: bool) -> list[str]:
    """Lets two writers change one object; the second one waits for the first one's row lock.

    With `id_before_lock`, the fault, the second writer takes its id before it waits.
    """
    environment = Environment(database, objects=1)
    await environment.prepare()
    async with database.system() as first, database.system() as second, database.system() as observer:

        async def change(opened: asyncpg.Connection, early: bool) -> None:
            async with opened.transaction():
                taken = await _take_id(opened) if early else None
                version = await opened.fetchval(
                    "UPDATE counted SET version = version + 1 WHERE id = 1 RETURNING version"
                )
                await put(opened, [], [(event(1), f"1:{version}".encode())])
                if taken is not None:
                    await _exchange_id(opened, taken)

        holding = first.transaction()
        await holding.start()
        await first.execute("UPDATE counted SET version = version + 1 WHERE id = 1")
        waiting = asyncio.create_task(change(second, id_before_lock))
        await _wait_until_blocked(observer, second.get_server_pid(), waiting)
        await put(first, [], [(event(1), b"1:1")])
        await holding.commit()
        await waiting
        await drain(observer)
    return await environment.faults()


async def _take_id(opened: asyncpg.Connection) -> int:
    taken: int = await opened.fetchval("SELECT control_take_id()")
    return taken


async def _exchange_id(opened: asyncpg.Connection, taken: int) -> None:
    await opened.execute("SELECT control_exchange_id($1)", taken)


async def _allow_early_ids(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("""
CREATE FUNCTION control_take_id() RETURNS bigint LANGUAGE sql SECURITY DEFINER
    AS $$ SELECT nextval('pending_changes_id_seq') $$;
CREATE FUNCTION control_exchange_id(early bigint) RETURNS void LANGUAGE sql SECURITY DEFINER
    AS $$
    WITH moved AS (DELETE FROM pending_changes WHERE id = (SELECT max(id) FROM pending_changes) RETURNING *)
    INSERT INTO pending_changes OVERRIDING SYSTEM VALUE
    SELECT early, records, record_hashes, events, messages, failures, created_at FROM moved
    $$;
GRANT EXECUTE ON FUNCTION control_take_id(), control_exchange_id(bigint) TO pilothouse_system""")


async def test_a_writer_that_waited_for_a_row_is_numbered_after_it(database: Database) -> None:
    assert await _two_change_one_object(database, id_before_lock=False) == []


async def test_an_id_taken_before_the_row_lock_is_detected(database: Database) -> None:
    """Control: the second writer's id is then smaller than the first one's."""
    await _allow_early_ids(database)
    assert await _two_change_one_object(database, id_before_lock=True) != []


async def test_a_pending_row_inserted_next_to_the_change_is_detected(database: Database) -> None:
    """Control: within one statement (a CTE) the insert does not wait for the change, so its id is taken too early."""
    environment = Environment(database, objects=1)
    await environment.prepare()
    async with connection(database.admin_dsn) as admin:
        await admin.execute("""
CREATE FUNCTION control_beside() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    WITH pending AS (
        INSERT INTO pending_changes (records, record_hashes, events, messages)
        VALUES ('{}', '{}', ARRAY[ROW('container', 1, NULL, NULL, 'object-1', 'modified', NULL, NULL, NULL, NULL,
            NULL)::pending_event_row::pending_event], ARRAY['?'::bytea]) RETURNING id),
    changed AS (UPDATE counted SET version = version + 1 WHERE id = 1 AND (SELECT id FROM pending) > 0
        RETURNING version)
    SELECT count(*) FROM changed
    $$;
CREATE FUNCTION control_fill() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    UPDATE pending_changes SET messages = ARRAY[convert_to('1:' || (SELECT version FROM counted WHERE id = 1), 'UTF8')]
    WHERE messages = ARRAY['?'::bytea]
    $$;
GRANT EXECUTE ON FUNCTION control_beside(), control_fill() TO pilothouse_system""")
    async with database.system() as first, database.system() as second, database.system() as observer:
        holding = first.transaction()
        await holding.start()
        await first.execute("UPDATE counted SET version = version + 1 WHERE id = 1")

        async def change() -> None:
            async with second.transaction():
                await second.execute("SELECT control_beside()")
                await second.execute("SELECT control_fill()")

        waiting = asyncio.create_task(change())
        await _wait_until_blocked(observer, second.get_server_pid(), waiting)
        await put(first, [], [(event(1), b"1:1")])
        await holding.commit()
        await waiting
        await drain(observer)
    assert await environment.faults() != []


async def _commit_while_the_head_is_held(database: Database) -> int:
    """Begins a pass while another transaction holds the head, and commits a change during that time.

    Returns the number of pending changes.
    """
    async with database.system() as holder, database.system() as waiter, database.system() as observer:
        async with database.owner() as owner:
            held = owner.transaction()
            await held.start()
            await owner.execute("SELECT 1 FROM stream_head FOR UPDATE")
            await put(observer, [record()], [])
            passing = asyncio.create_task(sequence(waiter))
            await _wait_until_blocked(observer, waiter.get_server_pid(), passing)
            await put(holder, [record(1)], [])
            await held.commit()
        await passing
        async with connection(database.admin_dsn) as admin:
            left: int = await admin.fetchval("SELECT count(*) FROM pending_changes")
        return left


async def test_a_pass_waits_for_the_head_and_sees_later_commits(database: Database) -> None:
    assert await _commit_while_the_head_is_held(database) == 0


async def _broken(database: Database, function: str, text: str, other: str) -> None:
    """Replaces a text that occurs once in a function."""
    async with database.owner() as owner:
        source = await owner.fetchval("SELECT pg_get_functiondef($1::text::regproc)", function)
        assert source.count(text) == 1
        await owner.execute(source.replace(text, other))


async def test_a_pass_that_skips_a_locked_head_leaves_rows_behind(database: Database) -> None:
    """Control of the test above."""
    numbering = "SELECT * INTO STRICT pass FROM public.number_visible(p_limit);"
    given_up = (
        "SELECT h.revision AS revision_before, 0 AS aside, false AS more INTO pass "
        "FROM public.stream_head AS h FOR UPDATE SKIP LOCKED; IF FOUND THEN "
    )
    await _broken(database, "sequence_changes", numbering, f"{given_up}{numbering} END IF;")
    assert await _commit_while_the_head_is_held(database) > 0


async def test_an_open_writer_keeps_the_floor_below_its_id(database: Database) -> None:
    assert await _stranded_by_the_floor(database) == 0


async def test_a_floor_by_the_newest_transaction_strands_rows(database: Database) -> None:
    """Control: the newest id of a snapshot is no bound for running transactions."""
    newest = "pg_snapshot_xmax(pg_current_snapshot()) >="
    await _broken(database, "raise_floor", "p_oldest_running >=", newest)
    assert await _stranded_by_the_floor(database) > 0


async def _stranded_by_the_floor(database: Database) -> int:
    """Lets a writer take its id and stay uncommitted during many passes.

    Returns the number of pending changes at the end.
    """
    async with database.system() as slow, database.system() as quick:
        transaction = slow.transaction()
        await transaction.start()
        await put(slow, [record()], [])
        for number in range(12):
            await put(quick, [record(number)], [])
            await sequence(quick)
        await transaction.commit()
        await sequence(quick)
        await sequence(quick)
        async with connection(database.admin_dsn) as admin:
            left: int = await admin.fetchval("SELECT count(*) FROM pending_changes")
            return left


async def test_a_writer_that_commits_during_a_pass_keeps_the_floor_below_its_id(database: Database) -> None:
    assert await _stranded_by_a_pass_that_is_held(database) == 0


async def test_a_floor_by_a_snapshot_after_that_of_the_rows_strands_them(database: Database) -> None:
    """Control: a writer that commits between the two snapshots is not among the rows, and no longer running either."""
    later = "pg_snapshot_xmin(pg_current_snapshot()) >="
    await _broken(database, "raise_floor", "p_oldest_running >=", later)
    assert await _stranded_by_a_pass_that_is_held(database) > 0


async def _stranded_by_a_pass_that_is_held(database: Database) -> int:
    """Lets a writer take its id before a pass reads the rows, and commit while the pass numbers them.

    Returns the number of pending changes.
    """
    async with (
        database.system() as slow,
        database.system() as quick,
        database.system() as passing,
        database.owner() as holder,
        connection(database.admin_dsn) as admin,
    ):
        transaction = slow.transaction()
        await transaction.start()
        await put(slow, [record()], [])
        for number in range(3):
            await put(quick, [record(number)], [])
            await sequence(quick)
        await put(quick, [record(3)], [])
        async with holder.transaction():
            await holder.execute("LOCK TABLE operation_logs IN SHARE MODE")
            pass_that_is_held = asyncio.create_task(sequence(passing))
            await _wait_until_blocked(admin, passing.get_server_pid(), pass_that_is_held)
            await transaction.commit()
        await pass_that_is_held
        await drain(quick)
        left: int = await admin.fetchval("SELECT count(*) FROM pending_changes")
        return left


async def test_the_floor_rises_under_a_snapshot_that_is_held_open(database: Database) -> None:
    async with (
        database.system() as reader,
        database.system() as quick,
        reader.transaction(isolation="repeatable_read", readonly=True),
    ):
        await reader.fetchval("SELECT count(*) FROM events")
        for number in range(12):
            await put(quick, [record(number)], [])
            await sequence(quick)
        assert await quick.fetchval("SELECT pending_floor FROM stream_head") >= 6


async def test_no_constraint_or_trigger_runs_after_the_id_is_taken(database: Database) -> None:
    """The table has no foreign key, trigger or deferrable constraint: each would wait after the id is taken."""
    async with connection(database.admin_dsn) as admin:
        assert await _after_the_id(admin) == []


async def test_a_foreign_key_on_pending_changes_is_detected(database: Database) -> None:
    """Control of the test above."""
    async with connection(database.admin_dsn) as admin:
        await admin.execute(
            "ALTER TABLE pending_changes ADD COLUMN user_id bigint CONSTRAINT fk_control REFERENCES users (id)"
        )
        assert await _after_the_id(admin) != []


async def _after_the_id(admin: asyncpg.Connection) -> list[str]:
    rows = await admin.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'pending_changes'::regclass "
        "AND (contype = 'f' OR condeferrable) UNION ALL "
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'pending_changes'::regclass"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("records", "events"),
    [
        ([record(action=None)], []),
        ([record(resource_type="x" * 51)], []),
        ([record(status_code=99)], []),
        ([record(duration_ms=-1)], []),
        ([record(request_method="PUT")], []),
        ([], [(event(resource_name=None), b"1:1")]),
        ([], [(event(), None)]),
    ],
)
async def test_rows_that_the_log_would_refuse_are_refused_in_the_mutation(
    database: Database, records: list[dict[str, object]], events: list[tuple[dict[str, object], bytes]]
) -> None:
    async with database.system() as system:
        with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)):
            await put(system, records, events)


async def test_a_row_that_cannot_be_numbered_is_set_aside_and_others_continue(
    database: Database,
) -> None:
    poison = record(user_id=10**12)
    async with database.system() as system:
        await put(system, [record(1)], [(event(1), b"1:1")])
        spoilt = await put(system, [poison], [(event(2), b"2:1")])
        await put(system, [record(3)], [(event(3), b"3:1")])
        await sequence(system)
        assert await system.fetchval("SELECT revision FROM stream_head") == 1, (
            "the first failure holds those behind"
        )
        await drain(system)
        assert await system.fetchval("SELECT revision FROM stream_head") == 2
        assert await numbering_faults(system) == []
        incident = await system.fetchrow("SELECT * FROM operation_logs WHERE error_code = 'INTERNAL'")
    async with connection(database.admin_dsn) as admin:
        aside = await admin.fetchrow("SELECT * FROM pending_incidents")
    assert incident is not None
    assert aside is not None
    assert (aside["id"], aside["incident_sequence"], aside["sqlstate"]) == (
        spoilt,
        incident["sequence"],
        "23503",
    )
    assert json.loads(incident["metadata"])["record_hashes"] == [record_hash(poison).hex()]
    assert _canonical_hash(incident) == incident["record_hash"], "the incident's own record can be verified"


def _canonical_hash(row: asyncpg.Record) -> bytes:
    names = audit_records.AuditRecord.__struct_fields__
    values = {name: row[name] for name in names}
    for name in ("metadata", "request_body", "request_headers", "response_body"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return audit_records.record_hash(
        audit_records.canonical_json(audit_records.AuditRecord(**values).as_row())
    )


@pytest.mark.parametrize("started_at", ["1990-01-31T23:59:59Z", "2990-01-01T00:00:00Z"])
async def test_a_record_without_a_partition_waits_with_all_later_rows(
    database: Database, started_at: str
) -> None:
    """The record comes from a server whose clock is far off; its events must not be lost."""
    async with database.system() as system:
        await put(system, [record(1, started_at=started_at)], [(event(1), b"1:1")])
        await put(system, [record(2)], [(event(2), b"2:1")])
        await sequence(system)
        for _ in range(3):
            with pytest.raises(asyncpg.ConfigurationLimitExceededError):
                await sequence(system)
        pools = Pools.connect(settings_of(database))
        try:
            assert await Partitions(pools.maintenance).make_ahead() == 1
        finally:
            await pools.close()
        await drain(system)
        events = await system.fetch("SELECT resource_id FROM events ORDER BY revision")
        assert [row["resource_id"] for row in events] == [1, 2]
        logged = await system.fetch("SELECT resource_id, started_at FROM operation_logs ORDER BY sequence")
        assert [row["resource_id"] for row in logged] == [1, 2]
        assert logged[0]["started_at"] == datetime.fromisoformat(started_at)
        assert await numbering_faults(system) == []


async def test_a_missing_partition_of_events_delays_everything_and_loses_nothing(database: Database) -> None:
    async with database.system() as system:
        async with connection(database.admin_dsn) as admin:
            await admin.execute("UPDATE stream_head SET revision = 99999999, oldest_revision = 99999999")
        await put(system, [record(1)], [(event(1), b"1:1")])
        for _ in range(3):
            with pytest.raises(asyncpg.ConfigurationLimitExceededError):
                await sequence(system)
        async with database.owner() as owner:
            await owner.execute("SELECT create_revision_partitions('events', 100000000, 1)")
        await drain(system)
        assert await system.fetchval("SELECT revision FROM stream_head") == 100000000
