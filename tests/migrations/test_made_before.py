"""A database from before release 0.2.0 is refused by everything that opens one, and stays unchanged."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from pilothouse_migrations import roles, runner, schema
from pilothouse_migrations.databases import ensure_database
from pilothouse_migrations.histories import begin_new_history
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection
from tests.main_job.test_starting import variables
from tests.migrations.catalogue import snapshot
from tests.readme.served import Shell

# The newest migration of the release before 0.2.0.
_OLD = "0055"


async def _make_old(owner: asyncpg.Connection) -> None:
    """Creates the parts of such a database that the checks read."""
    await owner.execute(
        "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL);"
        f"INSERT INTO alembic_version VALUES ('{_OLD}');"
        "CREATE TABLE schema_migrations (version text, applied_at timestamptz, checksum text,"
        " execution_time_ms integer, success boolean);"
        f"INSERT INTO schema_migrations VALUES ('{_OLD}', now(), '', 1, true);"
    )


async def test_an_old_database_is_neither_opened_nor_migrated(bare_database: Database) -> None:
    dsn = bare_database.maintenance_dsn
    async with bare_database.owner() as owner:
        await _make_old(owner)
        before = await snapshot(owner)
        for opening in (
            schema.check(dsn),
            schema.pending_migrations(dsn),
            runner.upgrade(dsn),
            runner.downgrade(dsn, "base"),
            runner.status(dsn),
            begin_new_history(dsn, "a test"),
        ):
            with pytest.raises(schema.TooOldError, match="create an empty database"):
                await opening
        assert await snapshot(owner) == before
        assert await owner.fetchval("SELECT version_num FROM alembic_version") == _OLD


@pytest.mark.full
@pytest.mark.parametrize("command", ["serve", "migrate up", "migrate down base", "migrate status"])
async def test_a_command_reports_in_one_line_what_to_do(
    bare_database: Database, tmp_path: Path, command: str
) -> None:
    async with bare_database.owner() as owner:
        await _make_old(owner)
    shell = Shell("", tmp_path, {"PILOTHOUSE_LISTEN": "127.0.0.1:0", **variables(bare_database)})
    said = await shell.run(f"pilothouse {command}", succeeds=False)
    assert said.splitlines()[-1] == (
        f"pilothouse: the database was made before release 0.2.0 (it is at migration {_OLD}) and cannot be upgraded:"
        " create an empty database for this release, or run the release that made it"
    )
    assert "Traceback" not in said


@pytest.mark.full
async def test_serve_dev_names_the_folder(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data" / "postgres")
    await server.start()
    try:
        await ensure_database(server.dsn(), "pilothouse")
        await ensure_roles(server.dsn("pilothouse"))
        async with connection(server.dsn("pilothouse", roles.MAINTENANCE)) as maintenance:
            await maintenance.execute(f"SET ROLE {roles.OWNER}")
            await _make_old(maintenance)
    finally:
        await server.stop()
    data = {"PILOTHOUSE_LISTEN": "127.0.0.1:0", "PILOTHOUSE_DATA_DIR": str(tmp_path / "data")}
    said = await Shell("", tmp_path, data).run("pilothouse serve --dev", succeeds=False)
    assert said.splitlines()[-1] == (
        f"pilothouse: {tmp_path / 'data'} contains a database that was created before release 0.2.0 and cannot be"
        " upgraded: move the folder away, or name another one in PILOTHOUSE_DATA_DIR"
    )
    assert "Traceback" not in said
