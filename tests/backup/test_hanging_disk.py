"""Backups on a disk that hangs: nothing else waits for it, nor does the end of the server or of its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pilothouse_server import processes
from pilothouse_server.backup import disk, schedule
from pilothouse_server.backup.disk import Disk
from pilothouse_server.backup.making import Plan
from pilothouse_server.errors import FailedPrecondition
from tests.conftest import Database
from tests.harness import running_server
from tests.main_job import loaded
from tests.processes import finished
from tests.server_program import variables
from tests.waiting import poll_until, runs_out, within


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A file that whoever opens it waits for: the kernel itself does not return."""
    path = tmp_path / "hangs"
    os.mkfifo(path, 0o600)
    yield path
    # Those who wait still have it now, and nothing in it.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def waiting() -> int:
    """How many steps of backups are under way in this process."""
    return sum(thread.name == "backup" for thread in threading.enumerate())


async def test_calls_and_the_end_of_a_server_wait_for_no_backup(
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


async def test_a_folder_that_hangs_is_told_and_not_waited_for_again_and_again(
    tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_ANSWER_SECONDS", runs_out(0.1))
    monkeypatch.setattr(disk, "_MOST_WAITING", 2)
    monkeypatch.setattr(schedule, "_newest", lambda *_: hanging.read_bytes())
    plan = Plan(dsn="", folder=tmp_path / "backups")
    due = schedule.Schedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7))
    before = waiting()
    for words in ("does not answer within", "does not answer within", "what was begun before"):
        with pytest.raises(FailedPrecondition, match=words) as failed:
            await schedule.back_up_if_due(due)
        assert failed.value.reason == "BACKUP_DISK_HANGS"
    assert waiting() == before + 2


async def test_what_is_removed_is_written_no_more(tmp_path: Path, hanging: Path) -> None:
    """The step that was given up ends first; one that had not begun is left out."""
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
from pilothouse_server.backup.schedule import Schedule, back_up_if_due

async def main():
    folder, key_file = map(Path, sys.argv[1:])
    plan = Plan(dsn="", folder=folder, key_file=key_file)
    backing_up = asyncio.create_task(
        back_up_if_due(Schedule(plan=plan, period=timedelta(days=1), kept=timedelta(days=7)))
    )
    await asyncio.wait([backing_up], timeout=0.5)
    backing_up.cancel()
    await asyncio.wait([backing_up])
    print("ended")

asyncio.run(main())
"""


async def test_a_process_ends_whatever_its_backup_waits_for(tmp_path: Path, hanging: Path) -> None:
    code, printed, errors = await finished(
        sys.executable, "-c", _ENDS, str(tmp_path / "backups"), str(hanging)
    )
    assert (code, printed, errors) == (0, b"ended\n", b"")


@pytest.mark.full
async def test_a_server_ends_though_a_file_of_its_own_hangs(database: Database, tmp_path: Path) -> None:
    """The place in the database is kept in the data folder, and written once more at the end."""
    environment = variables(database, tmp_path, {"PILOTHOUSE_GRACE_SECONDS": "0.5"})
    log = tmp_path / "server.log"
    with log.open("wb") as errors:
        process = await loaded.start(["serve"], environment, errors=errors.fileno())
    try:
        async with within(60.0):
            assert b"serves gRPC on" in await process.stdout.readline()
        # Where it writes the file that becomes the one that is kept.
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
