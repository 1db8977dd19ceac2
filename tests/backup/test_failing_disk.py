"""Backups on a failing disk, such as a network folder whose server is down: every failing step is reported."""

from __future__ import annotations

import builtins
import errno
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.backup import manifests, programs, repository
from pilothouse_server.backup.making import Plan
from pilothouse_server.backup.schedule import BackupSchedule, back_up_if_due
from pilothouse_server.errors import FailedPrecondition
from tests.backup.copies import back_up
from tests.backup.test_schedule import made_at
from tests.conftest import Database, connection

NOW = datetime.now(UTC).replace(microsecond=0)
# The system calls of a backup's steps.
CALLS = ("stat", "listdir", "scandir", "mkdir", "open", "chmod", "fsync", "rename", "statvfs")


class Failing:
    """A disk on which one operation fails: number `at` of those that the threads of backups begin."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._error = 0
        self.at, self.begun, self.failed = 0, 0, ""
        for name in CALLS:
            patch.setattr(os, name, self._instead_of(name, getattr(os, name)))
        # `Path.open` calls this function.
        patch.setattr("io.open", self._instead_of("open", builtins.open))

    def fail(self, at: int, error: int) -> None:
        """Makes operation number `at` fail with `error`, and resets the count."""
        self._error = error
        self.at, self.begun, self.failed = at, 0, ""

    def _instead_of(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*given: Any, **named: Any) -> Any:
            if threading.current_thread().name == "backup":
                self.begun += 1
                if self.begun == self.at:
                    self.failed = name
                    raise OSError(self._error, os.strerror(self._error))
            return real(*given, **named)

        return operation


def quick_programs(folder: Path, dump: str = "echo a dump") -> Path:
    """Creates a fast pg_dump, and the accompanying programs."""
    folder.mkdir()
    for name in programs.NAMES:
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{name} (PostgreSQL) 99.0"; else {dump}; fi\n'
        )
        path.chmod(0o700)
    return folder


async def test_any_failing_operation_reports_the_folder_as_unusable(
    apart: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = quick_programs(tmp_path / "programs")
    disk = Failing(monkeypatch)
    failed: set[str] = set()
    # More iterations than there are operations; each operation fails with another error than the one before.
    for at, number in zip(
        range(1, 200), cycle((errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT)), strict=False
    ):
        folder = tmp_path / str(at)
        made_at(folder, NOW - timedelta(days=30))
        left = manifests.unfinished(folder, "pilothouse-20200101T000000Z")
        left.mkdir()
        os.utime(left, (0, 0))
        plan = Plan(dsn=apart.maintenance_dsn, folder=folder, programs_in=[quick])
        due = BackupSchedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7), now=lambda: NOW)
        disk.fail(at, number)
        refused: FailedPrecondition | None = None
        try:
            await back_up_if_due(due)
        except FailedPrecondition as error:
            refused = error
        if refused is not None:
            assert refused.reason == "BACKUP_FILE_UNUSABLE", (at, disk.failed)
            assert refused.message == f"{folder}: {os.strerror(number).lower()}"
            failed.add(disk.failed)
        if not disk.failed:
            break
    assert failed == set(CALLS)


_LOCKS = (
    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
    "WHERE locktype = 'advisory' AND datname = current_database()"
)


async def test_a_finished_backup_releases_its_lock(apart: Database) -> None:
    async with connection(apart.maintenance_dsn) as looking:
        for _ in range(30):
            async with repository.snapshot(apart.maintenance_dsn, ()):
                assert await looking.fetchval(_LOCKS) == 1
            assert await looking.fetchval(_LOCKS) == 0


async def test_a_program_that_cannot_be_run_is_named(apart: Database, tmp_path: Path) -> None:
    quick = quick_programs(tmp_path / "programs", dump="exit 1")
    # The program prints its version, and is deleted when it is to dump.
    (quick / "pg_dump").write_text('#!/bin/sh\nrm "$0"\necho "pg_dump (PostgreSQL) 99.0"\n')
    with pytest.raises(FailedPrecondition, match=f"{quick}/pg_dump: no such file") as refused:
        await back_up(apart, tmp_path / "backups", programs_in=[quick])
    assert refused.value.reason == "BACKUP_FILE_UNUSABLE"
