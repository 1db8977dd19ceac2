"""Migrations next to a busy server: none fails or deadlocks, and calls fail only with UNAVAILABLE.

The stand-in repeats the statements of earlier migrations that deadlocked nine times of nine. In one transaction, it
drops an index of `containers`, adds columns to `namespaces` and `containers`, fills a usage table from another one and
replaces a function. A second migration builds an index on a plain table and one on a partitioned table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy.exc import DBAPIError

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as namespaces
from pilothouse_client.errors import PilothouseError
from pilothouse_migrations import runner
from tests import deadlocks
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.migrations.catalogue import snapshot
from tests.migrations.stand_in import StandIn, standing_in, text_of
from tests.waiting import poll_until

_LOCKS = 'locks = ("containers", "namespaces")'
_UP = '''statements.run("""
ALTER TABLE namespaces ADD COLUMN stand_in text NOT NULL DEFAULT '';
INSERT INTO container_usage_days (container_id, namespace_id, day)
SELECT DISTINCT container_id, namespace_id, date_trunc('day', bucket, 'UTC') FROM container_usage_daily
ON CONFLICT DO NOTHING;
ALTER TABLE containers ADD COLUMN stand_in bigint NOT NULL DEFAULT 0;
DROP INDEX idx_containers_pod_ip;
""")'''
_DOWN = '''statements.run("""
CREATE INDEX idx_containers_pod_ip ON containers (pod_ip);
ALTER TABLE containers DROP COLUMN stand_in;
ALTER TABLE namespaces DROP COLUMN stand_in;
""")'''
_PUT_CHANGES = text_of("put_changes").replace("put_id bigint;", "put_id bigint;\n    stand_in integer := 1;")
_CHANGE = StandIn(_UP, _DOWN, texts={"put_changes": _PUT_CHANGES}, constants=_LOCKS)
_INDEXES = StandIn(
    'statements.build_index("idx_containers_stand_in", "containers", "(stand_in, id)")\n'
    'statements.build_index("idx_operation_logs_stand_in", "operation_logs", "(username, started_at)")',
    'statements.drop_index("idx_operation_logs_stand_in")\nstatements.drop_index("idx_containers_stand_in")',
    constants="transactional = False",
)
# Four writers make twenty changes a second on a busy machine; the soak test has more.
_WRITERS, _WRITERS_OF_THE_SOAK = 4, 8


def _calls(server: Server, space: str, name: str) -> list[Callable[[], Awaitable[object]]]:
    """Returns the calls of a container's life, and a change of its namespace."""
    web = containers.Container(name=name, image="nginx:1.27", labels={"written": name})
    of_space = namespaces.Namespace(description=name)
    client, mask = server.admin, FieldMask(paths=["labels"])
    return [
        lambda: client.containers.create(namespace=space, container=web),
        lambda: client.namespaces.update(
            name=space, namespace=of_space, update_mask=FieldMask(paths=["description"])
        ),
        lambda: client.containers.update(namespace=space, name=name, container=web, update_mask=mask),
        lambda: client.containers.delete(namespace=space, name=name),
    ]


@asynccontextmanager
async def _writing(server: Server, writers: int) -> AsyncIterator[list[int]]:
    """Runs callers that create, change and delete containers until the end of the block.

    Yields how many calls succeeded. Raises the first error that is not UNAVAILABLE.
    """
    done, calls = asyncio.Event(), [0]

    async def write(number: int) -> None:
        space = f"load-{number}"
        await server.admin.namespaces.create(namespace=namespaces.Namespace(name=space))
        turn = 0
        while not done.is_set():
            turn += 1
            for call in _calls(server, space, f"web-{turn}"):
                try:
                    await call()
                    calls[0] += 1
                except PilothouseError as error:
                    if error.code is not grpc.StatusCode.UNAVAILABLE:
                        raise

    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(number))
        try:
            yield calls
        finally:
            done.set()


async def _up_and_down(server: Server, folder: Path, *, rounds: int, writers: int) -> list[str]:
    """Applies and reverts both migrations next to a busy server.

    Returns the ids of those that were applied.
    """
    dsn, last = server.database.maintenance_dsn, runner.head()
    applied = []
    async with server.database.owner() as owner, _writing(server, writers) as calls:
        before = await snapshot(owner)
        with standing_in(folder, _CHANGE, _INDEXES) as made:
            for _ in range(rounds):
                seen = calls[0]
                applied += await runner.upgrade(dsn)
                await _more_calls(calls, seen)
                assert await owner.fetch(_INVALID) == []
                assert await runner.downgrade(dsn, last) == made[::-1]
                assert await snapshot(owner) == before
    return applied


async def _more_calls(calls: list[int], seen: int) -> None:
    async def succeeded() -> bool:
        return calls[0] > seen + 20

    await poll_until(succeeded, what="calls next to a migrated schema")


_INVALID = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"


@pytest.mark.full(minutes=3)
async def test_migrations_next_to_a_busy_server_fail_no_call(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path / "server") as server:
        assert len(await _up_and_down(server, tmp_path, rounds=1, writers=_WRITERS)) == 2


@pytest.mark.soak(part="kills")
@pytest.mark.parametrize("number", range(10))
async def test_many_migrations_next_to_a_busy_server_fail_no_call(
    database: Database, tmp_path: Path, number: int
) -> None:
    async with running_server(database, tmp_path / "server") as server:
        folder = tmp_path / str(number)
        applied = await _up_and_down(server, folder, rounds=4, writers=_WRITERS_OF_THE_SOAK)
        assert len(applied) == 2 * 4


async def _against_a_writer(tenants: Database, folder: Path, migration: StandIn) -> list[str]:
    """Migrates while a transaction has changed a container and is about to change its namespace.

    Returns the ids of the applied migrations.
    """
    waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'containers'::regclass)"
    # A migration that names no locks waits like a plain statement, and is not repeated.
    limits = runner.Limits() if migration.constants else runner.Limits(30_000, lock_seconds=0)
    async with tenants.owner() as writer, connection(tenants.admin_dsn) as observer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE containers SET message = 'written' WHERE id = 1")
        with standing_in(folder, migration):
            moving = asyncio.create_task(runner.upgrade(tenants.maintenance_dsn, limits=limits))
            await poll_until(lambda: observer.fetchval(waits), what="the migration waits for containers")
            try:
                await writer.execute("UPDATE namespaces SET description = 'written' WHERE id = 1")
                await transaction.commit()
            except asyncpg.DeadlockDetectedError:
                await transaction.rollback()
                await moving
                raise
            return await moving


async def test_a_migration_that_locks_first_does_not_deadlock(tenants: Database, tmp_path: Path) -> None:
    assert len(await _against_a_writer(tenants, tmp_path, _CHANGE)) == 1


@pytest.mark.full
async def test_a_migration_that_does_not_lock_first_deadlocks(tenants: Database, tmp_path: Path) -> None:
    """The control: PostgreSQL ends one of the two transactions."""
    deadlocks.EXPECTED.add(tenants.name)
    unlocked = StandIn(_UP, _DOWN, texts=_CHANGE.texts)
    ended = (asyncpg.DeadlockDetectedError, runner.MigrationFailedError)
    with pytest.raises(ended, match="deadlock detected"):
        await _against_a_writer(tenants, tmp_path, unlocked)


async def test_an_invalid_index_of_an_interrupted_run_is_replaced(tenants: Database, tmp_path: Path) -> None:
    """A unique index over duplicate values fails and leaves an invalid index, as a kill does."""
    dsn = tenants.maintenance_dsn
    with standing_in(tmp_path, _CHANGE, _INDEXES) as (change, indexes):
        await runner.upgrade(dsn, change)
        async with tenants.owner() as owner:
            for table, name in (
                ("containers", "idx_containers_stand_in"),
                (await owner.fetchval(_A_PARTITION), None),
            ):
                name = name or f"{table}_idx_operation_logs_stand_in"[:63]
                with pytest.raises(asyncpg.UniqueViolationError):
                    await owner.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ((1))")
            assert len(await owner.fetch(_INVALID)) == 2
            assert await runner.upgrade(dsn) == [indexes]
            assert await owner.fetch(_INVALID) == []
            assert await owner.fetchval("SELECT to_regclass('idx_containers_stand_in') IS NOT NULL")
            # A partition that is created later also has the index.
            await owner.execute("SELECT create_monthly_partitions('operation_logs', '2031-02-17', 1)")
            assert await owner.fetch(_INVALID) == []


_A_PARTITION = (
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'operation_logs'::regclass AND EXISTS (SELECT FROM operation_logs AS l"
    " WHERE l.tableoid = c.oid) LIMIT 1"
)


async def test_a_failure_names_the_migration_and_those_before_it(database: Database, tmp_path: Path) -> None:
    wrong = StandIn('statements.run("SELECT 1 / 0;")')
    with standing_in(tmp_path, _CHANGE, wrong) as (first, second):
        with pytest.raises(runner.MigrationFailedError) as failed:
            await runner.upgrade(database.maintenance_dsn)
        assert isinstance(failed.value.__cause__, DBAPIError)
        assert str(failed.value) == (
            f"migration {second} was not applied: division by zero; nothing of it was kept;"
            f" applied before it: {first}; `pilothouse migrate up` may be run again"
        )
        entries = {entry.version: entry for entry in await runner.status(database.maintenance_dsn)}
        assert (entries[first].applied, entries[second].applied, entries[second].success) == (
            True,
            False,
            False,
        )
