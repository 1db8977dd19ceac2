"""The maintenance of tables: only due work is done, and a failure does not prevent the other work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_server.errors import FailedPrecondition, NotFound
from pilothouse_server.store import maintenance
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.maintenance import Maintenance
from tests.conftest import Database, connection
from tests.identity.server import settings_of
from tests.waiting import poll_until

DAY = timedelta(days=1)


@pytest_asyncio.fixture(loop_scope="session")
async def maintainer(database: Database) -> AsyncIterator[Maintenance]:
    pools = Pools.connect(settings_of(database))
    yield Maintenance(pools.maintenance)
    await pools.close()


async def statistics(admin: asyncpg.Connection, table: str) -> asyncpg.Record:
    return await admin.fetchrow(
        "SELECT n_dead_tup, last_vacuum, last_analyze FROM pg_stat_all_tables WHERE relname = $1", table
    )


async def test_a_round_does_only_the_due_work(database: Database, maintainer: Maintenance) -> None:
    async with connection(database.admin_dsn) as admin:
        # Autovacuum must not run first.
        await admin.execute("CREATE TABLE worn (id int) WITH (autovacuum_enabled = false)")
        await admin.execute("ALTER TABLE worn OWNER TO pilothouse_owner")
        await admin.execute("INSERT INTO worn SELECT generate_series(1, 1000)")
        await admin.execute("DELETE FROM worn WHERE id > 10")

        async def dead() -> int:
            return int((await statistics(admin, "worn"))["n_dead_tup"])

        await poll_until(dead, what="the dead rows are counted")
        done = await maintainer.round(DAY, 0)
        assert {'ANALYZE public."containers"', 'ANALYZE public."operation_logs"'} <= set(done)
        assert 'VACUUM (ANALYZE) public."worn"' in done
        # A partition is analysed with its partitioned table.
        assert not [each for each in done if "operation_logs_y" in each]
        assert await dead() == 0
        logs = await statistics(admin, "operation_logs")
        assert logs["last_analyze"] is not None
        assert await maintainer.round(DAY, 0) == []
        assert 'ANALYZE public."containers"' in await maintainer.round(timedelta(0), 0)


async def test_a_mostly_empty_index_is_rebuilt(
    database: Database, maintainer: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SMALLEST_INDEX_BYTES", 100_000)
    async with connection(database.admin_dsn) as admin:
        for name in ("worn", "packed"):
            await admin.execute(
                f"CREATE TABLE {name} (id bigint CONSTRAINT pk_{name} PRIMARY KEY);"
                f"ALTER TABLE {name} OWNER TO pilothouse_owner;"
                f"INSERT INTO {name} SELECT generate_series(1, 20000)"
            )
        await admin.execute("DELETE FROM worn WHERE id % 10 > 0")
        await admin.execute("CREATE INDEX left_ccnew ON worn (id)")
        await admin.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'left_ccnew'::regclass"
        )
        await maintainer.vacuum(["worn", "packed"])
        before = await admin.fetchval("SELECT pg_relation_size('pk_worn')")
        assert await maintainer.reindex(bloat_percent=95) == [
            'DROP INDEX CONCURRENTLY IF EXISTS public."left_ccnew"'
        ]
        assert await maintainer.reindex(bloat_percent=50) == ['REINDEX INDEX CONCURRENTLY public."pk_worn"']
        assert await admin.fetchval("SELECT pg_relation_size('pk_worn')") < before / 5
        assert await admin.fetchval("SELECT to_regclass('left_ccnew')") is None
        assert await maintainer.reindex(bloat_percent=50) == []


async def test_unknown_tables_are_refused(maintainer: Maintenance, database: Database) -> None:
    assert await maintainer.analyze(["containers"]) == ['ANALYZE public."containers"']
    assert await maintainer.reindex(["containers", "events"]) == [
        'REINDEX TABLE CONCURRENTLY public."containers"',
        'REINDEX TABLE CONCURRENTLY public."events"',
    ]
    with pytest.raises(NotFound) as refused:
        await maintainer.vacuum(["containers", 'no"such'])
    assert refused.value.reason == "TABLE_NOT_FOUND"
    # The connection that assumed the owner's role is not reused.
    assert await maintainer.analyze([]) != []


async def test_a_locked_table_does_not_prevent_work_on_another(
    database: Database, maintainer: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LOCK_TIMEOUT_MILLISECONDS", 50)
    async with connection(database.admin_dsn) as admin, admin.transaction():
        await admin.execute("LOCK TABLE containers IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(FailedPrecondition) as refused:
            await maintainer.vacuum(["containers", "volumes"])
    assert refused.value.reason == "DATABASE_CARE_FAILED"
    assert '1 of 2 statements failed, the first of them VACUUM (ANALYZE) public."containers"' in str(
        refused.value
    )
    async with connection(database.admin_dsn) as admin:
        assert (await statistics(admin, "volumes"))["last_vacuum"] is not None
        assert (await statistics(admin, "containers"))["last_vacuum"] is None
