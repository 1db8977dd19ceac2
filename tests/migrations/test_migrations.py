"""Every migration up and down, on empty and on filled tables, and the record of migrations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_migrations import roles, runner, schema
from pilothouse_migrations.checksums import CHECKSUMS
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.migrations.catalogue import as_before, contents, snapshot
from tests.migrations.filling import fill
from tests.migrations.stand_in import StandIn, standing_in

_KEPT = (runner.revisions()[0], "0104", "0113")


class Ladder:
    """A database that is migrated step by step, and copied at the migration that a test begins with.

    So each migration is applied to it once, instead of once for each test of a later one. A test that goes back to one
    of `_KEPT` begins with a copy that was made on the way.
    """

    def __init__(self, server: EmbeddedPostgres, climbing: Database, stack: AsyncExitStack) -> None:
        self._server = server
        self._climbing = climbing
        self._stack = stack
        self._revision = "base"
        self._copies: dict[str, Database] = {}

    @asynccontextmanager
    async def database(self, revision: str) -> AsyncIterator[Database]:
        """Yields the test's own database at `revision`."""
        known = ["base", *runner.revisions()]
        steps = known[known.index(self._revision) + 1 : known.index(revision) + 1]
        stops = [step for step in steps if step in _KEPT or step == revision]
        for stop in stops:
            await runner.upgrade(self._climbing.maintenance_dsn, stop)
            self._revision = stop
            if stop in _KEPT:
                copy = new_database(self._server, self._climbing.name)
                self._copies[stop] = await self._stack.enter_async_context(copy)
        begun = self._copies.get(revision, self._climbing)
        assert begun is not self._climbing or revision == self._revision, f"name {revision} in _KEPT"
        async with new_database(self._server, begun.name) as copied:
            yield copied


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ladder(postgres: EmbeddedPostgres) -> AsyncIterator[Ladder]:
    async with AsyncExitStack() as stack:
        climbing = await stack.enter_async_context(new_database(postgres))
        await ensure_roles(climbing.admin_dsn)
        yield Ladder(postgres, climbing, stack)


@pytest.mark.full(minutes=3)
async def test_up_down_and_up_again_on_an_empty_database(bare_database: Database) -> None:
    dsn = bare_database.maintenance_dsn
    assert await runner.upgrade(dsn) == runner.revisions()
    async with bare_database.owner() as owner:
        migrated = await snapshot(owner)
        assert await runner.downgrade(dsn, "base") == runner.revisions()[::-1]
        assert await snapshot(owner) == set()
        assert await runner.upgrade(dsn) == runner.revisions()
        assert await snapshot(owner) == migrated


@pytest.mark.parametrize("revision", runner.revisions())
async def test_a_migration_keeps_the_existing_rows(ladder: Ladder, revision: str) -> None:
    """Applied after filling, a migration changes no row.

    After a downgrade it leaves the same schema and rows as before.
    """
    known = runner.revisions()
    before = known[known.index(revision) - 1] if revision != known[0] else "base"
    async with ladder.database(before) as database, database.owner() as owner:
        dsn = database.maintenance_dsn
        await fill(owner)
        rows, schema = await contents(owner), await snapshot(owner)

        assert await runner.upgrade(dsn, revision) == [revision]
        assert as_before(await contents(owner), rows) == rows

        await fill(owner)
        assert await runner.downgrade(dsn, before) == [revision]
        assert await snapshot(owner) == schema
        assert await contents(owner) == rows

        assert await runner.upgrade(dsn, revision) == [revision]
        assert as_before(await contents(owner), rows) == rows


async def test_pods_inherit_labels_and_annotations_of_existing_containers(ladder: Ladder) -> None:
    async with ladder.database("0104") as database, database.owner() as owner:
        await fill(owner)
        await owner.execute(
            "UPDATE containers SET spec = spec - 'pod_labels' - 'pod_annotations' - 'taken_over', "
            """labels = '{"app": "web"}', annotations = '{"note": "one"}'"""
        )
        await runner.upgrade(database.maintenance_dsn, "0105")
        specs = [json.loads(row[0]) for row in await owner.fetch("SELECT spec FROM containers")]
    assert specs
    for spec in specs:
        assert (spec["pod_labels"], spec["pod_annotations"]) == ({"app": "web"}, {"note": "one"})


async def test_images_of_all_programs_of_existing_containers_are_found(ladder: Ladder) -> None:
    async with ladder.database("0113") as database, database.owner() as owner:
        await fill(owner)
        await owner.execute("""UPDATE containers SET spec = '{"image": "registry.example/alpha/web:1",
            "sidecars": [{"name": "proxy", "image": "envoy"},
                {"name": "same", "image": "registry.example/alpha/web:1"}],
            "init_containers": [{"name": "init", "image": "host:5000/a/b@sha256:ab"}]}' WHERE id = 1""")
        await runner.upgrade(database.maintenance_dsn, "0114")
        found = await owner.fetch(
            "SELECT program, repository, name, tag, digest FROM program_images AS p JOIN container_images AS i"
            " ON i.id = p.image_id WHERE container_id = 1 AND namespace_id = 1 ORDER BY program"
        )
    assert [tuple(row) for row in found] == [
        ("init", "host:5000/a", "b", None, "sha256:ab"),
        ("proxy", None, "envoy", "latest", None),
        ("same", "registry.example/alpha", "web", "1", None),
    ]


async def test_all_the_way_down_on_filled_tables(database: Database) -> None:
    async with database.owner() as owner:
        await fill(owner)
        await runner.downgrade(database.maintenance_dsn, "base")
        assert await snapshot(owner) == set()


async def test_applying_again_changes_nothing(database: Database) -> None:
    assert await runner.upgrade(database.maintenance_dsn) == []
    await schema.check(database.maintenance_dsn)


async def test_the_record_contains_checksum_duration_and_success(database: Database) -> None:
    entries = await runner.status(database.maintenance_dsn)
    assert [entry.version for entry in entries] == runner.revisions()
    for entry in entries:
        assert entry.applied
        assert entry.success
        assert entry.applied_at is not None
        assert entry.execution_time_ms is not None
        assert entry.execution_time_ms >= 0
        assert len(entry.checksum) == 64
    # Migrations that only bring new functions render the same text, and so have one checksum: functions have their own.
    assert {entry.version: entry.checksum for entry in entries} == CHECKSUMS
    assert [entry.applied for entry in await runner.status(database.system_dsn)] == [True] * len(entries)


async def test_only_the_owner_writes_the_record(database: Database) -> None:
    async with database.system() as system:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await system.execute("UPDATE schema_migrations SET checksum = ''")
    async with database.app(1) as app:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetch("SELECT * FROM schema_migrations")


async def test_a_changed_checksum_is_an_error_at_start(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute(
            "UPDATE schema_migrations SET checksum = repeat('0', 64) WHERE version = $1", runner.head()
        )
    for start in (schema.check, runner.upgrade):
        with pytest.raises(schema.ChecksumMismatchError, match=f"migration {runner.head()}"):
            await start(database.maintenance_dsn)


async def test_a_missing_record_is_an_error_at_start(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("DELETE FROM schema_migrations WHERE version = $1", runner.head())
    with pytest.raises(schema.ChecksumMismatchError, match=f"migration {runner.head()}"):
        await schema.check(database.maintenance_dsn)


async def test_a_database_of_a_newer_release_is_refused(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("UPDATE alembic_version SET version_num = '9999'")
    for start in (schema.check, runner.upgrade, runner.status):
        with pytest.raises(schema.UnknownRevisionError, match="9999"):
            await start(database.maintenance_dsn)


async def test_pending_migrations_are_named(ladder: Ladder) -> None:
    async with ladder.database(["base", *runner.revisions()][-2]) as database:
        with pytest.raises(schema.PendingMigrationsError, match=runner.head()):
            await schema.check(database.maintenance_dsn)


async def test_a_failed_migration_is_rolled_back_and_recorded(bare_database: Database) -> None:
    """The migration is applied once its obstacle is removed."""
    dsn, first = bare_database.maintenance_dsn, runner.revisions()[0]
    async with bare_database.owner() as owner:
        await owner.execute("CREATE TABLE reconcile_work ()")
        with pytest.raises(runner.MigrationFailedError, match=f"migration {first} was not applied"):
            await runner.upgrade(dsn)
        entries = {entry.version: entry for entry in await runner.status(dsn)}
        assert entries[first].success is False
        assert not entries[first].applied
        # A table that was created before the obstacle was reached.
        assert await owner.fetchval("SELECT to_regclass('users')") is None

        await owner.execute("DROP TABLE reconcile_work")
        assert await runner.upgrade(dsn, first) == [first]
        entries = {entry.version: entry for entry in await runner.status(dsn)}
        assert entries[first].success is True


async def test_two_servers_that_start_together_migrate_once(bare_database: Database) -> None:
    first, second, *_ = runner.revisions()
    upgrades = [runner.upgrade(bare_database.maintenance_dsn, second) for _ in range(3)]
    assert sorted(await asyncio.gather(*upgrades)) == [[], [], [first, second]]


async def test_a_lock_timeout_ends_the_migration_and_changes_nothing(ladder: Ladder) -> None:
    limits = runner.Limits(lock_timeout_milliseconds=50, lock_seconds=0.5)
    async with (
        ladder.database(runner.revisions()[0]) as database,
        database.system() as system,
        database.owner() as owner,
        system.transaction(),
    ):
        await system.execute("SELECT count(*) FROM roles")
        schema = await snapshot(owner)
        with pytest.raises(runner.MigrationFailedError, match="lock timeout") as raised:
            await runner.downgrade(database.maintenance_dsn, "base", limits=limits)
        assert "nothing of it was kept" in str(raised.value)
        assert "`pilothouse migrate down REVISION` may be run again" in str(raised.value)
        assert await owner.fetchval("SELECT version_num FROM alembic_version") == runner.revisions()[0]
        assert await snapshot(owner) == schema


async def test_everything_belongs_to_the_owner(database: Database) -> None:
    async with database.owner() as owner:
        strangers = await owner.fetch(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> $1::regrole
            UNION ALL
            SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> $1::regrole""",
            roles.OWNER,
        )
        assert strangers == []


_CHANGES = (
    "ALTER TABLE leases ADD COLUMN note text",
    "ALTER TABLE leases ALTER COLUMN owner SET NOT NULL",
    "ALTER TABLE leases ALTER COLUMN owner TYPE varchar(99)",
    "ALTER TABLE leases DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE leases DROP CONSTRAINT pk_leases",
    "DROP INDEX idx_events_created_at",
    "ALTER POLICY roles_visible_policy ON roles USING (false)",
    "ALTER FUNCTION app_reach() RESET search_path",
    "GRANT SELECT ON leases TO pilothouse_app",
    "GRANT SELECT (password_hash) ON users TO pilothouse_app",
    "GRANT EXECUTE ON FUNCTION begin_new_history(text, text, uuid, boolean) TO pilothouse_app",
    "COMMENT ON TABLE leases IS 'something else'",
    "ALTER VIEW container_details RESET (security_invoker)",
    "DROP TABLE leases",
)


async def test_the_comparison_of_schemas_detects_each_change(database: Database) -> None:
    """The positive control of every comparison above."""
    async with database.owner() as owner:
        before = await snapshot(owner)
        for change in _CHANGES:
            transaction = owner.transaction()
            await transaction.start()
            await owner.execute(change)
            assert await snapshot(owner) != before, change
            await transaction.rollback()
        assert await snapshot(owner) == before


async def test_a_downgrade_that_leaves_something_is_detected(database: Database, tmp_path: Path) -> None:
    """The control of the comparison after each downgrade."""
    left = StandIn(up='statements.run("CREATE TABLE left_over (id bigint);")')
    async with database.owner() as owner:
        before = await snapshot(owner)
        with standing_in(tmp_path, left) as (revision,):
            assert await runner.upgrade(database.maintenance_dsn) == [revision]
            assert await runner.downgrade(database.maintenance_dsn, runner.revisions()[-2]) == [revision]
        assert await snapshot(owner) != before
