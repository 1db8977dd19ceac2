"""The commands of docs/backup.md, typed in its order."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_migrations import runner
from pilothouse_migrations.databases import ensure_database
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres, program
from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database, addresses, connection, number_changes
from tests.harness import PASSWORD
from tests.migrations.sequencing import event, record
from tests.migrations.sequencing import put as put_change
from tests.readme.served import ROOT, Shell, serving
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=3)

PAGE = ROOT / "docs" / "backup.md"
NAME = "pilothouse-20261127T080000Z"
MAKE = (
    "pilothouse backup key backup.key",
    "pilothouse backup --directory backups --key-file backup.key --with-master-keys",
    "pilothouse backup list --directory backups",
    "pilothouse backup verify backups/pilothouse-20261127T080000Z --key-file backup.key",
)
CREATE_DATABASE = (
    "createdb --maintenance-db postgresql://postgres@db.example.org/postgres pilothouse_restored"
)
SERVE = "PILOTHOUSE_SECRET_KEY_FILE=restored.key pilothouse serve"
# These commands are longer than a line of Python may be, so a separate file contains them as the page does.
RESTORE, BASE_BACKUP, RESTORE_DEV = (ROOT / "tests" / "backup" / "calls.sh").read_text().splitlines()
# The restore into an embedded server, which runs afterwards as any server of `serve --dev`.
BEFORE, AFTER = "mv .pilothouse pilothouse-before", "cp pilothouse-before/cluster.json .pilothouse/"
SERVE_DEV = "pilothouse serve --dev"
COPY_BASE = "cp -r /var/backups/pilothouse/base /var/lib/postgresql/restored"
SIGNAL = "touch /var/lib/postgresql/restored/recovery.signal"
NEW_HISTORY = 'pilothouse migrate new-history --reason "restored to a point in time"'
MAINTENANCE = (
    ("pilothouse database analyze", 'ANALYZE public."containers"'),
    ("pilothouse database vacuum containers", 'VACUUM (ANALYZE) public."containers"'),
    ("pilothouse database reindex containers", 'REINDEX TABLE CONCURRENTLY public."containers"'),
)
STATS = "pilothouse database stats"


def urls(database: Database) -> dict[str, str]:
    """Returns the settings for a server on a database."""
    return {
        "PILOTHOUSE_DATABASE_URL": database.app_dsn,
        "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
        "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
    }


def put(line: str, places: dict[str, str]) -> str:
    """Returns a line of the page with this test's paths and addresses in place of the page's."""
    for there, here in places.items():
        assert there in line
        line = line.replace(there, here)
    return line


async def restored_for_development(shell: Shell, name: str, with_cluster: dict[str, str]) -> None:
    """Follows the section on `serve --dev`; the folder contains an earlier database, which is moved away."""
    shell = Shell("", shell.directory, directory_of_files=shell.directory)
    await shell.run("mkdir -p .pilothouse/postgres/data && touch .pilothouse/postgres/data/PG_VERSION")
    line = put(RESTORE_DEV, {NAME: name})
    assert "contains a database" in await shell.run(line, succeeds=False)
    await shell.run(f"touch .pilothouse/cluster.json && {BEFORE}")
    wrong_key = line.replace("--key-file backup.key", "--key-file restored.key")
    await shell.run(wrong_key, succeeds=False)
    assert "is restored" in await shell.run(line)
    await shell.run(AFTER)
    variables = {**with_cluster, "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
    async with (
        serving(SERVE_DEV, shell.directory, variables) as address,
        AsyncClient(address, username="admin", password=PASSWORD) as client,
    ):
        values = await client.config.reveal_secret(namespace="vault", name="pin")
    assert values.data["value"] == b"correct horse"


async def test_a_backup_is_made_and_restored(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    shell = Shell("", tmp_path, urls(database), directory_of_files=tmp_path)
    restored = addresses(postgres, "pilothouse_restored")
    async with SimulatedCluster(speed=10.0) as cluster:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(cluster.kubeconfig()))
        with_cluster = {"PILOTHOUSE_KUBECONFIG": str(kubeconfig)}
        async with serving("pilothouse serve", tmp_path, urls(database) | with_cluster) as address:
            async with AsyncClient(address, username="admin", password=PASSWORD) as client:
                await client.namespaces.create(namespace=namespace_pb2.Namespace(name="vault"))
                secret = config_pb2.Secret(name="pin", string_data={"value": "correct horse"})
                await client.config.create_secret(namespace="vault", secret=secret)
            name = await made(shell, tmp_path)
            for line, said in MAINTENANCE:
                assert said in await shell.run(line)
            login = f"pilothouse login --server {address} --user admin --password-stdin"
            await shell.run(login, PASSWORD + "\n")
            assert "statements by their time" in await shell.run(STATS)

        there = {"postgresql://postgres@db.example.org/postgres": f"'{postgres.dsn()}'"}
        await shell.run(put(CREATE_DATABASE, there | {"createdb": str(program("createdb"))}))
        try:
            url = "postgresql://postgres@db.example.org/pilothouse_restored"
            line = put(RESTORE, {NAME: name, url: f"'{restored.admin_dsn}'"})
            assert "is restored" in await shell.run(line)
            assert "not empty" in await shell.run(line.replace("restored.key", "again.key"), succeeds=False)
            key_setting, _, command = SERVE.partition(" ")
            variables = dict([key_setting.split("=")], **urls(restored), **with_cluster)
            async with (
                serving(command, tmp_path, variables) as address,
                AsyncClient(address, username="admin", password=PASSWORD) as client,
            ):
                values = await client.config.reveal_secret(namespace="vault", name="pin")
            assert values.data["value"] == b"correct horse"
            await restored_for_development(shell, name, with_cluster)
        finally:
            async with connection(postgres.dsn()) as admin:
                await admin.execute("DROP DATABASE IF EXISTS pilothouse_restored WITH (FORCE)")


async def made(shell: Shell, directory: Path) -> str:
    """Creates a backup as the page does, checks it, and returns its name."""
    key, make, list_, verify = MAKE
    assert "made in backup.key" in await shell.run(key)
    said = await shell.run(make)
    assert "next to the master keys" not in said
    (name,) = re.findall(r"^backups/(\S+)$", said, re.MULTILINE)
    assert name in await shell.run(list_)
    assert "is whole" in await shell.run(put(verify, {NAME: name}))
    # If no folder is named, the backup's folder is next to the master keys.
    assert "next to the master keys" in await shell.run("pilothouse backup")
    beside = Shell("", directory, directory_of_files=directory / "backups" / name)
    assert "manifest.json: OK" in await beside.run("sha256sum --check SHA256SUMS")
    return str(name)


@asynccontextmanager
async def running(directory: Path, settings: dict[str, str]) -> AsyncIterator[EmbeddedPostgres]:
    """Runs the test's own PostgreSQL server."""
    server = EmbeddedPostgres(directory, settings=settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def settings_on_page(number: int, places: dict[str, str]) -> dict[str, str]:
    """Returns the postgresql.conf lines of a block of the page, with this test's paths."""
    (block,) = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)[number : number + 1]
    lines = [line.split(" = ", 1) for line in block.strip().splitlines()]
    found = {name: value.strip("'") for name, value in lines}
    for there, here in places.items():
        assert there in block
        found = {name: value.replace(there, here) for name, value in found.items()}
    return found


async def test_a_database_is_restored_to_a_point_in_time(tmp_path: Path) -> None:
    archive, base, restored = (tmp_path / name for name in ("wal", "base", "restored"))
    wal = {"/var/backups/pilothouse/wal": str(archive)}
    archive.mkdir()
    shell = Shell("", tmp_path, directory_of_files=tmp_path)
    async with running(tmp_path / "primary", settings_on_page(0, wal)) as primary:
        account = ProcessAccount.choose(primary.data_directory)
        account.own(archive)
        await ensure_database(primary.dsn(), "pilothouse")
        database = addresses(primary, "pilothouse")
        await ensure_roles(database.admin_dsn)
        await runner.upgrade(database.maintenance_dsn)
        line = put(BASE_BACKUP, {"postgresql://postgres@db.example.org": f"'{primary.dsn()}'"})
        await shell.run(
            put(
                line,
                {"/var/backups/pilothouse/base": str(base), "pg_basebackup": str(program("pg_basebackup"))},
            )
        )
        async with database.owner() as owner:
            await put_change(owner, [record(1)], [(event(1), b"before")])
            await number_changes(owner)
            history = await owner.fetchval("SELECT history_id FROM stream_head")
            moment: datetime = await owner.fetchval("SELECT clock_timestamp()")
            await put_change(owner, [record(2)], [(event(2), b"after")])
            await number_changes(owner)
        async with connection(primary.dsn()) as admin:
            segment = await admin.fetchval("SELECT pg_walfile_name(pg_switch_wal())")

            async def archived() -> bool:
                last = await admin.fetchval("SELECT last_archived_wal FROM pg_stat_archiver")
                return last is not None and last[8:] >= segment[8:]

            await poll_until(archived, seconds=30, what=f"{segment} in the archive")

    restored.mkdir()
    data = {"/var/lib/postgresql/restored": str(restored / "data")}
    await shell.run(put(COPY_BASE, {"/var/backups/pilothouse/base": str(base), **data}))
    await shell.run(put(SIGNAL, data))
    for path in (restored / "data", *(restored / "data").rglob("*")):
        account.own(path)
    until = {"2026-11-27 08:00:00+00": moment.isoformat(sep=" ")}
    async with running(restored, settings_on_page(1, wal | until)) as copy:
        database = addresses(copy, "pilothouse")
        shell.variables.update(urls(database))
        async with database.owner() as owner:

            async def is_promoted() -> bool:
                return not await owner.fetchval("SELECT pg_is_in_recovery()")

            # The server can be read before it has replayed all changes.
            await poll_until(is_promoted, seconds=30, what="the end of the recovery")
            assert [row[0] for row in await owner.fetch("SELECT message FROM events")] == [b"before"]
            # The copy does not detect that it is one.
            assert await owner.fetchval("SELECT history_id FROM stream_head") == history
            await shell.run(NEW_HISTORY)
            assert await owner.fetchval("SELECT history_id FROM stream_head") != history
