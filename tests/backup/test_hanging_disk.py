"""Backups on a disk that hangs.

Nothing else waits for the disk, not even the end of the server or its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.backup import disk, making, manifests, schedule
from pilothouse_server.backup.disk import Disk
from pilothouse_server.backup.making import Plan
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.launch import processes
from tests.backup.copies import back_up
from tests.backup.test_failing_disk import quick_programs
from tests.backup.test_schedule import made_at
from tests.conftest import Database, connection
from tests.harness import running_server
from tests.main_job import loaded
from tests.processes import finished
from tests.server_program import variables
from tests.waiting import poll_until, runs_out, within


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """Yields a file that blocks every process that opens it in the system call."""
    path = tmp_path / "hangs"
    os.mkfifo(path, 0o600)
    yield path
    # Processes that wait are unblocked now, with an empty file.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def waiting() -> int:
    """Returns the number of steps of backups that are in progress in this process."""
    return sum(thread.name == "backup" for thread in threading.enumerate())


async def test_calls_and_shutdown_do_not_wait_for_a_backup(
    database: Database, tmp_path: Path, hanging: Path
) -> None:
    before = waiting()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            running_server(
                database,
                tmp_path,
                with_cluster=False,
                backup_dir=tmp_path / "backups",
                backup_key_file=hanging,
            )
        )

        async def steps() -> int:
            return waiting()

        await poll_until(steps, lambda count: count > before)
        async with within(5.0):
            await server.admin.identity.who_am_i()
            await stack.aclose()
    assert waiting() > before


async def test_a_hanging_folder_is_reported_and_not_waited_for_repeatedly(
    tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(0.1))
    monkeypatch.setattr(disk, "_MOST_WAITING", 2)
    monkeypatch.setattr(schedule, "_newest", lambda *_: hanging.read_bytes())
    plan = Plan(dsn="", folder=tmp_path / "backups")
    due = schedule.BackupSchedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7))
    before = waiting()
    for words in ("does not respond within", "does not respond within", "an earlier operation"):
        with pytest.raises(FailedPrecondition, match=words) as failed:
            await schedule.back_up_if_due(due)
        assert failed.value.reason == "BACKUP_DISK_HANGS"
    assert waiting() == before + 2


async def held(database: Database) -> list[str]:
    """Returns the names of the connections that are idle in a transaction."""
    async with connection(database.admin_dsn) as admin:
        rows = await admin.fetch(
            "SELECT application_name FROM pg_stat_activity "
            "WHERE state = 'idle in transaction' AND datname = current_database()"
        )
    return [row[0] for row in rows]


async def test_a_disk_that_hangs_during_the_dump_is_reported_without_connections(
    database: Database, tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(0.5))
    monkeypatch.setattr(disk, "_CLEARING_SECONDS", runs_out(0.1))
    monkeypatch.setattr(schedule, "LOOK_SECONDS", runs_out(0.5))
    real, hung = manifests.HashingWriter.write, threading.Event()

    def write(writer: manifests.HashingWriter, data: bytes) -> None:
        if not hung.is_set():
            hung.set()
            hanging.read_bytes()
        real(writer, data)

    monkeypatch.setattr(manifests.HashingWriter, "write", write)
    folder = tmp_path / "backups"

    async def last_failure() -> object:
        async with database.system() as sql:
            return await sql.fetchval("SELECT last_failure FROM periodic_jobs WHERE name = 'back up'")

    async def found() -> list[manifests.Backup | Path]:
        return manifests.found_in(folder)

    async with running_server(database, tmp_path, with_cluster=False, backup_dir=folder):
        assert await poll_until(last_failure) == "BACKUP_DISK_HANGS"
        await poll_until(lambda: held(database), lambda names: not names)
        # The disk responds again, and the check for due backups runs again.
        hanging.write_bytes(b"")
        (made,) = await poll_until(found, what="a backup")
    assert isinstance(made, manifests.Backup)
    assert [path.name for path in folder.iterdir()] == [made.path.name]


@pytest.mark.parametrize("name", ["fsync", "rename", "chmod"])
async def test_each_step_at_the_end_of_a_backup_is_bounded(
    apart: Database, tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(0.5))
    monkeypatch.setattr(disk, "_CLEARING_SECONDS", runs_out(0.1))
    real = getattr(os, name)

    def operation(*given: Any, **named: Any) -> Any:
        if threading.current_thread().name == "backup":
            hanging.read_bytes()
        return real(*given, **named)

    monkeypatch.setattr(os, name, operation)
    quick = quick_programs(tmp_path / "programs")
    async with within(20.0):
        with pytest.raises(FailedPrecondition) as failed:
            await back_up(apart, tmp_path / "backups", programs_in=[quick])
    assert failed.value.reason == "BACKUP_DISK_HANGS"
    assert not await held(apart)


async def test_a_disk_that_hangs_during_the_removal_of_old_backups_is_reported(
    apart: Database, tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(0.5))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: hanging.read_bytes())
    monkeypatch.setattr(disk, "_CLEARING_SECONDS", runs_out(0.1))
    folder, now = tmp_path / "backups", datetime.now(UTC)
    made_at(folder, now - timedelta(days=30))
    plan = Plan(dsn=apart.maintenance_dsn, folder=folder, programs_in=[quick_programs(tmp_path / "programs")])

    async def made(*_: object) -> manifests.Backup:
        return manifests.read(made_at(folder, now))

    monkeypatch.setattr(making, "make", made)
    due = schedule.BackupSchedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7))
    async with within(20.0):
        with pytest.raises(FailedPrecondition) as failed:
            await schedule.back_up_if_due(due)
    assert failed.value.reason == "BACKUP_DISK_HANGS"


async def test_a_slow_disk_does_not_count_as_hanging(
    apart: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole backup takes longer than one operation may, and each step writes a bounded amount to the disk."""
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(1.5))
    monkeypatch.setattr(making, "_MOST_UNSYNCED_BYTES", 1 << 20)
    slowness = threading.Event()
    synced: list[int] = []

    def slow(descriptor: int) -> None:
        """Takes this time on any disk: nothing is synchronized."""
        synced.append(os.fstat(descriptor).st_size)
        slowness.wait(runs_out(0.2))

    monkeypatch.setattr(os, "fsync", slow)
    quick = quick_programs(tmp_path / "programs", dump="exec head -c 8388608 /dev/zero")
    made = await back_up(apart, tmp_path / "backups", programs_in=[quick])
    assert made.bytes == 8 << 20
    grown = [size for size in synced if size >= 1 << 20]
    assert len(grown) >= 4
    assert all(after - before <= 2 << 20 for before, after in itertools.pairwise(grown))


async def test_removed_files_are_not_written_afterwards(tmp_path: Path, hanging: Path) -> None:
    """The step that was given up ends first; a step that had not begun is left out."""
    steps: list[str] = []
    one = Disk(tmp_path)

    def hang() -> None:
        hanging.read_bytes()
        steps.append("hung")

    for step in (hang, lambda: steps.append("never")):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(runs_out(0.1)):
                await one.run(step)
    clearing = asyncio.create_task(one.clear(lambda: steps.append("removed")))
    await asyncio.sleep(0)
    hanging.write_bytes(b"")
    async with within(10.0):
        await clearing
        await one.run(lambda: None)
    assert steps == ["hung", "removed"]


_ENDS = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from pilothouse_server.backup.making import Plan
from pilothouse_server.backup.schedule import BackupSchedule, back_up_if_due

async def main():
    folder, key_file = map(Path, sys.argv[1:])
    plan = Plan(dsn="", folder=folder, key_file=key_file)
    backing_up = asyncio.create_task(
        back_up_if_due(BackupSchedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7)))
    )
    await asyncio.wait([backing_up], timeout=0.5)
    backing_up.cancel()
    await asyncio.wait([backing_up])
    print("ended")

asyncio.run(main())
"""


async def test_a_process_ends_although_its_backup_is_blocked(tmp_path: Path, hanging: Path) -> None:
    code, printed, errors = await finished(
        sys.executable, "-c", _ENDS, str(tmp_path / "backups"), str(hanging)
    )
    assert (code, printed, errors) == (0, b"ended\n", b"")


_ENDS_IN_THE_DUMP = """
import asyncio, os, sys
from pathlib import Path
from pilothouse_server.backup import disk, making
from pilothouse_server.errors import FailedPrecondition

disk._ANSWER_SECONDS, disk._CLEARING_SECONDS = 0.5, 0.1
dsn, folder, quick, hanging = sys.argv[1:]
real = Path.open

def opened(path, *given, **named):
    if path.name != "database.dump":
        return real(path, *given, **named)
    # It takes so much, and then the kernel waits for a reader.
    return open(os.open(hanging, os.O_RDWR), "wb")

Path.open = opened

async def main():
    plan = making.Plan(dsn=dsn, folder=Path(folder), programs_in=[Path(quick)])
    try:
        await making.make(plan)
    except FailedPrecondition as refused:
        print(refused.reason)

asyncio.run(main())
"""


async def test_a_process_ends_although_a_write_of_its_backup_hangs(
    apart: Database, tmp_path: Path, hanging: Path
) -> None:
    quick = quick_programs(tmp_path / "programs", dump="exec head -c 8388608 /dev/zero")
    words = (apart.maintenance_dsn, str(tmp_path / "backups"), str(quick), str(hanging))
    async with within(20.0):
        code, printed, errors = await finished(sys.executable, "-c", _ENDS_IN_THE_DUMP, *words)
    assert (code, printed, errors) == (0, b"BACKUP_DISK_HANGS\n", b"")


@pytest.mark.full
async def test_a_server_ends_although_a_file_of_its_own_hangs(database: Database, tmp_path: Path) -> None:
    """The server stores its position in the database in the data folder, and writes it once more at the end."""
    environment = variables(database, tmp_path, {"PILOTHOUSE_GRACE_SECONDS": "0.5"})
    log = tmp_path / "server.log"
    with log.open("wb") as errors:
        process = await loaded.start(["serve"], environment, errors=errors.fileno())
    try:
        async with within(60.0):
            assert b"serves gRPC on" in await process.stdout.readline()
        # The server writes this file first, and then renames it.
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (data / f"database-position.json.{process.pid}").unlink()
        os.mkfifo(data / f"database-position.json.{process.pid}")
        os.kill(process.pid, signal.SIGTERM)
        async with within(processes.CLOSING_SECONDS + 5.0):
            code = await process.wait()
    finally:
        await process.kill()
    assert code == 1
    assert "has not ended within the grace" in log.read_text()
