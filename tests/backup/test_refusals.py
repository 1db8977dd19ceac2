"""Damaged backups and restores that must not happen are refused, with nothing written."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from pilothouse_server.backup import making, manifests, programs, verifying
from pilothouse_server.backup.manifests import MANIFEST, SUMS, Backup
from pilothouse_server.backup.sealing import make_key_file
from pilothouse_server.errors import FailedPrecondition, Unavailable
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.backup.copies import back_up, copied, empty_database, flip, objects_in, restore
from tests.conftest import Database, connection


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(apart: Database, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Returns a backup that is not encrypted."""
    return await back_up(apart, tmp_path_factory.mktemp("plain"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "backup.key"
    make_key_file(path)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def encrypted(apart: Database, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Returns an encrypted backup, with a file of master keys."""
    folder = tmp_path_factory.mktemp("encrypted")
    master = folder / "master.key"
    master.write_text("5a" * 32 + "\n")
    return await back_up(apart, folder, key_file=key_file, master_key_file=master)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """Yields an empty database, which must stay empty."""
    async with empty_database(postgres) as made:
        yield made
        assert await objects_in(made) == 0


async def reason_of(path: Path, target: Database, key_file: Path | None = None) -> str:
    """Returns why a restore is refused."""
    with pytest.raises(FailedPrecondition) as refused:
        await restore(path, target, key_file=key_file)
    return refused.value.reason


def positions(file: Path) -> set[int]:
    """Returns the positions of flipped bits: every byte of a small file, and a sample of a large one."""
    size = file.stat().st_size
    return set(range(size)) if size < 4096 else {*range(0, size, size // 60), size - 1}


async def test_a_flipped_bit_anywhere_is_detected(
    plain: Backup, encrypted: Backup, key_file: Path, tmp_path: Path
) -> None:
    for backup in (plain, encrypted):
        files = sorted(path.name for path in backup.path.iterdir())
        assert {MANIFEST, SUMS} < set(files)
        spoiled = copied(backup.path, tmp_path)
        for name in files:
            for at in positions(spoiled / name):
                flip(spoiled / name, at, at % 8)
                with pytest.raises(FailedPrecondition) as refused:
                    manifests.check_files(manifests.read(spoiled))
                assert refused.value.reason in ("BACKUP_DAMAGED", "BACKUP_NEWER_FORMAT"), (name, at)
                flip(spoiled / name, at, at % 8)
        # The file is unchanged again, so the flips were what was detected.
        await verifying.verify(spoiled, key_file if backup is encrypted else None)


async def test_nothing_is_restored_from_a_damaged_backup(
    plain: Backup, encrypted: Backup, key_file: Path, target: Database, tmp_path: Path
) -> None:
    for backup, key in ((plain, None), (encrypted, key_file)):
        spoiled = copied(backup.path, tmp_path)
        (dump,) = spoiled.glob("database.dump*")
        flip(dump, dump.stat().st_size // 2)
        assert await reason_of(spoiled, target, key) == "BACKUP_DAMAGED"
        dump.write_bytes(dump.read_bytes()[:-1])
        assert await reason_of(spoiled, target, key) == "BACKUP_DAMAGED"
        dump.unlink()
        assert await reason_of(spoiled, target, key) == "BACKUP_FILE_UNUSABLE"


def signed_anew(path: Path, **changes: object) -> None:
    """Changes the manifest and makes the sums match, as only an attacker or another release would."""
    made = manifests.read(path).manifest
    files = {
        name: manifests.File(len(data), hashlib.sha256(data).hexdigest())
        for name in made.files
        for data in [(path / name).read_bytes()]
    }
    manifests.write(path, msgspec.structs.replace(made, **{"files": files, **changes}))


async def test_a_cut_dump_with_matching_sums_leaves_nothing(
    plain: Backup, encrypted: Backup, key_file: Path, target: Database, tmp_path: Path
) -> None:
    """The sums match, so pg_restore or the encryption detects the damage."""
    for backup, key, expected in (
        (plain, None, "BACKUP_PROGRAM_FAILED"),
        (encrypted, key_file, "BACKUP_DAMAGED"),
    ):
        spoiled = copied(backup.path, tmp_path)
        (dump,) = spoiled.glob("database.dump*")
        dump.write_bytes(dump.read_bytes()[: 3 * dump.stat().st_size // 4])
        signed_anew(spoiled)
        assert await reason_of(spoiled, target, key) == expected


async def test_a_head_of_another_dump_is_refused_at_the_end_of_the_restore(
    plain: Backup, target: Database, tmp_path: Path
) -> None:
    """By then the transaction contains the whole dump, and it is rolled back."""
    spoiled = copied(plain.path, tmp_path)
    signed_anew(spoiled, audit_head="5a" * 32)
    with pytest.raises(FailedPrecondition, match="the head of the restored log is not the one") as refused:
        await restore(spoiled, target)
    assert refused.value.reason == "BACKUP_PROGRAM_FAILED"


async def test_backups_of_newer_releases_are_refused(plain: Backup, target: Database, tmp_path: Path) -> None:
    for changes, expected in (
        ({"schema_version": "9999"}, "BACKUP_NEWER_SCHEMA"),
        ({"format": 2}, "BACKUP_NEWER_FORMAT"),
        ({"server_version_number": 990000}, "BACKUP_PROGRAMS_TOO_OLD"),
    ):
        spoiled = copied(plain.path, tmp_path / expected)
        signed_anew(spoiled, **changes)
        assert await reason_of(spoiled, target) == expected


async def test_a_backup_from_before_0_2_0_is_refused(plain: Backup, target: Database, tmp_path: Path) -> None:
    spoiled = copied(plain.path, tmp_path)
    signed_anew(spoiled, schema_version="0055")
    for refusing in (verifying.verify(spoiled, None), restore(spoiled, target)):
        with pytest.raises(FailedPrecondition, match="restore it with the release that made it") as refused:
            await refusing
        assert refused.value.reason == "BACKUP_OLDER_SCHEMA"
    assert await objects_in(target) == 0


async def test_a_wrong_or_missing_key_is_refused(encrypted: Backup, target: Database, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    make_key_file(other)
    assert await reason_of(encrypted.path, target, other) == "BACKUP_WRONG_KEY"
    assert await reason_of(encrypted.path, target) == "BACKUP_WRONG_KEY"


async def test_a_database_that_is_not_empty_stays_as_it_is(plain: Backup, postgres: EmbeddedPostgres) -> None:
    async with empty_database(postgres) as filled:
        async with connection(filled.admin_dsn) as admin:
            await admin.execute("CREATE TABLE somebodys (id int)")
        assert await reason_of(plain.path, filled) == "BACKUP_TARGET_NOT_EMPTY"
        assert await objects_in(filled) == 1


async def test_a_full_disk_leaves_no_backup(
    apart: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await back_up(apart, tmp_path, free=lambda _: 1 << 20)
    assert refused.value.reason == "BACKUP_NO_SPACE"
    assert "1 MiB free" in refused.value.message
    assert list(tmp_path.iterdir()) == []

    def full(writer: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # The space was free when it was checked, and another program used it afterwards.
    monkeypatch.setattr(manifests.HashingWriter, "write", full)
    with pytest.raises(FailedPrecondition, match="no space left on device"):
        await back_up(apart, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_master_keys_are_never_backed_up_in_the_clear(
    apart: Database, encrypted: Backup, tmp_path: Path
) -> None:
    master = tmp_path / "master.key"
    master.write_text("ab" * 32 + "\n")
    with pytest.raises(FailedPrecondition) as refused:
        await back_up(apart, tmp_path / "backups", master_key_file=master)
    assert refused.value.reason == "BACKUP_KEYS_IN_THE_CLEAR"
    assert not (tmp_path / "backups").exists()
    assert all(b"5a" * 32 not in path.read_bytes() for path in encrypted.path.iterdir())


async def test_only_one_backup_at_a_time_is_created(apart: Database, tmp_path: Path) -> None:
    async with connection(apart.maintenance_dsn) as other:
        await other.execute("SELECT pg_advisory_lock(hashtextextended('pilothouse/backup', 0))")
        with pytest.raises(FailedPrecondition) as refused:
            await back_up(apart, tmp_path)
    assert refused.value.reason == "BACKUP_RUNS_ALREADY"
    assert list(tmp_path.iterdir()) == []


async def test_databases_that_cannot_be_backed_up_are_refused_with_a_reason(
    apart: Database, bare_database: Database, tmp_path: Path
) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await back_up(bare_database, tmp_path)
    assert refused.value.reason == "BACKUP_NO_SCHEMA"
    with pytest.raises(FailedPrecondition) as refused:
        await making.make(making.Plan(dsn=apart.app_dsn, folder=tmp_path))
    assert refused.value.reason == "BACKUP_NOT_THE_OWNER"
    with pytest.raises(Unavailable):
        await making.make(making.Plan(dsn="postgresql://nobody@127.0.0.1:1/nothing", folder=tmp_path))
    with pytest.raises(FailedPrecondition) as refused:
        await back_up(apart, tmp_path, seconds=0.0)
    assert refused.value.reason == "BACKUP_TOO_SLOW"
    assert list(tmp_path.iterdir()) == []


async def test_programs_that_are_too_old_are_named(apart: Database, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in programs.NAMES:
        (old / name).write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.3'\n")
        (old / name).chmod(0o755)
    with pytest.raises(FailedPrecondition) as refused:
        await back_up(apart, tmp_path / "backups", programs_in=[old, tmp_path])
    assert refused.value.reason == "BACKUP_PROGRAMS_TOO_OLD"
    assert f"installed: 14 in {old}" in refused.value.message
    assert list((tmp_path / "backups").iterdir()) == []
