"""Backups on schedule: when one is due, and which are removed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from pilothouse_server.backup import manifests
from pilothouse_server.backup.making import Plan
from pilothouse_server.backup.manifests import Backup, BackupManifest
from pilothouse_server.backup.schedule import BackupSchedule, back_up_if_due
from pilothouse_server.backup.sealing import make_key_file
from pilothouse_server.encryption.keys import KeyRing
from tests.conftest import Database
from tests.harness import running_server
from tests.waiting import poll_until

NOW = datetime.now(UTC).replace(microsecond=0)


def made_at(folder: Path, moment: datetime) -> Path:
    """Creates an empty backup of that time."""
    path = folder / manifests.name_at(moment, folder)
    path.mkdir(parents=True)
    made = BackupManifest(
        format=manifests.FORMAT,
        created_at=moment,
        database="pilothouse",
        database_bytes=0,
        schema_version="0001",
        server_version_number=180000,
        history_id="",
        revision=0,
        audit_sequence=0,
        audit_head="",
        master_key_ids=(),
        encrypted_under="",
        files={},
    )
    manifests.write(path, made)
    return path


def schedule(database: Database, folder: Path, now: datetime = NOW) -> BackupSchedule:
    return BackupSchedule(
        plan=Plan(dsn=database.maintenance_dsn, folder=folder),
        period=timedelta(days=1),
        kept=timedelta(days=7),
        now=lambda: now,
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_backup_is_created_when_the_newest_is_older_than_the_period(
    apart: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    recent = made_at(folder, NOW - timedelta(hours=23))
    assert await back_up_if_due(schedule(apart, folder)) is None
    assert names(folder) == {recent.name}
    made = await back_up_if_due(schedule(apart, folder, NOW + timedelta(hours=2)))
    assert made is not None
    assert names(folder) == {recent.name, made.path.name}
    assert await back_up_if_due(schedule(apart, folder)) is None


async def test_a_backup_of_a_clock_ahead_does_not_prevent_new_ones(apart: Database, tmp_path: Path) -> None:
    ahead, yesterday = (made_at(tmp_path, NOW + timedelta(days=days)) for days in (730, -2))
    made = await back_up_if_due(schedule(apart, tmp_path))
    assert made is not None
    assert made.manifest.created_at == NOW
    assert names(tmp_path) == {ahead.name, yesterday.name, made.path.name}
    assert await back_up_if_due(schedule(apart, tmp_path)) is None


async def test_old_backups_are_removed_and_unknown_files_stay(apart: Database, tmp_path: Path) -> None:
    old, older = (made_at(tmp_path, NOW - timedelta(days=days)) for days in (8, 30))
    kept = made_at(tmp_path, NOW - timedelta(days=6))
    strange = made_at(tmp_path, NOW - timedelta(days=20))
    (strange / manifests.MANIFEST).write_text("{}")
    somebodys = tmp_path / "notes"
    somebodys.mkdir()
    begun, running = (manifests.unfinished(tmp_path, f"pilothouse-2020010{day}T000000Z") for day in (1, 2))
    begun.mkdir()
    running.mkdir()
    os.utime(begun, (0, 0))
    made = await back_up_if_due(schedule(apart, tmp_path))
    assert made is not None
    assert not any(path.exists() for path in (old, older, begun))
    assert names(tmp_path) == {made.path.name, kept.name, strange.name, somebodys.name, running.name}
    assert manifests.found_in(tmp_path)[0] == strange


async def test_the_newest_backup_is_kept_at_any_age(apart: Database, tmp_path: Path) -> None:
    made = await back_up_if_due(schedule(apart, tmp_path, NOW + timedelta(days=400)))
    assert made is not None
    assert names(tmp_path) == {made.path.name}


async def test_only_one_of_two_servers_backs_up(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "backups"

    async def succeeded() -> bool:
        async with database.system() as sql:
            return bool(
                await sql.fetchval("SELECT last_success_at FROM periodic_jobs WHERE name = 'back up'")
            )

    key_file, master = tmp_path / "backup.key", tmp_path / "master.key"
    make_key_file(key_file)
    KeyRing.load(master, create=True)
    changes: dict[str, Any] = {
        "backup_dir": folder,
        "backup_key_file": key_file,
        "secret_key_file": master,
        "with_cluster": False,
    }
    async with (
        running_server(database, tmp_path / "first", **changes),
        running_server(database, tmp_path / "second", **changes),
    ):
        # Either server creates the backup; the other one then finds that none is due.
        await poll_until(succeeded, seconds=20, what="a backup")
    (made,) = manifests.found_in(folder)
    assert isinstance(made, Backup)
    assert set(made.manifest.files) == {"database.dump.sealed"}
    manifests.check_files(made)
    shown = REGISTRY.get_sample_value("pilothouse_backup_newest_timestamp_seconds")
    assert shown == made.manifest.created_at.timestamp()
