"""A killed backup or restore leaves nothing that could be mistaken for a complete one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_server.backup import manifests
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.backup.copies import back_up, empty_database, objects_in, restore
from tests.conftest import Database, connection
from tests.processes import started
from tests.readme.served import BIN, server_variables
from tests.waiting import poll_until

pytestmark = pytest.mark.full

_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = $2"
_HELD = "SELECT count(*) FROM pg_stat_activity WHERE $1::integer = ANY (pg_blocking_pids(pid))"


async def sessions(database: Database) -> int:
    """Returns the number of connections of a backup or restore.

    PostgreSQL notices a killed client with a delay.
    """
    async with connection(database.admin_dsn) as admin:
        return int(await admin.fetchval(_SESSIONS, database.name, "pilothouse-backup"))


async def test_a_killed_restore_leaves_the_database_empty(
    apart: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The restore is blocked in the middle, by a transaction that creates a table whose name comes late in the dump."""
    backup = await back_up(apart, tmp_path)
    async with (
        empty_database(postgres) as empty,
        connection(empty.admin_dsn) as admin,
        connection(empty.admin_dsn) as other,
    ):
        command = (str(BIN / "pilothouse"), "restore", str(backup.path), "--admin-url", empty.admin_dsn)
        hold = other.transaction()
        await hold.start()
        await other.execute("CREATE TABLE public.volumes ()")
        async with started(*command, env=server_variables(tmp_path)) as process:

            async def held_up() -> bool:
                return bool(await admin.fetchval(_HELD, other.get_server_pid()))

            await poll_until(held_up, seconds=30, what="a restore that waits")
            process.kill()
            await process.wait()
        await hold.rollback()

        await poll_until(lambda: sessions(empty), lambda found: found == 0, what="the end of psql")
        assert await objects_in(empty) == 0
        await restore(backup.path, empty)
        assert await objects_in(empty) > 100


async def test_a_killed_backup_does_not_count_as_a_backup(tenants: Database, tmp_path: Path) -> None:
    """The backup is blocked at a locked table."""
    folder = tmp_path / "backups"
    async with (
        connection(tenants.admin_dsn) as admin,
        connection(tenants.admin_dsn) as other,
        other.transaction(),
    ):
        await other.execute("LOCK TABLE volumes IN ACCESS EXCLUSIVE MODE")
        variables = {"PILOTHOUSE_MAINTENANCE_DATABASE_URL": tenants.maintenance_dsn}
        command = (str(BIN / "pilothouse"), "backup", "--directory", str(folder))
        async with started(*command, env=server_variables(tmp_path) | variables) as process:

            async def held_up() -> bool:
                return bool(await admin.fetchval(_HELD, other.get_server_pid()))

            await poll_until(held_up, seconds=30, what="a backup that waits")
            process.kill()
            await process.wait()
    await poll_until(lambda: sessions(tenants), lambda found: found == 0, what="the end of its sessions")
    assert manifests.found_in(folder) == []
    (begun,) = manifests.left_unfinished(folder)
    assert begun.is_dir()
    made = await back_up(tenants, folder)
    assert manifests.found_in(folder) == [made]
