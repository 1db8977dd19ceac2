"""Files of sinks on a disk that hangs.

Nothing else waits for the disk, not even the end of the server or its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.sinks import runner
from pilothouse_server.audit.sinks.senders import SinkFailed, file
from pilothouse_server.audit.sinks.senders.file import FileSender, FileWrites
from tests.audit.receivers import http_receiver
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.processes import finished
from tests.waiting import patient, poll_until, runs_out, within

# The size of asyncio's default thread pool, which serves all blocking work, such as name look-ups.
THREADS = min(32, (os.cpu_count() or 1) + 4)


class Disk:
    """A disk whose writes block while it hangs; `waiting` is the number of blocked writes."""

    def __init__(self) -> None:
        self._answers = threading.Event()
        self._answers.set()
        self._counting = threading.Lock()
        self.waiting = 0
        self.write_all = file._write_all

    def hang(self) -> None:
        self._answers.clear()

    def go_on(self) -> None:
        self._answers.set()

    def _count(self, more: int) -> None:
        with self._counting:
            self.waiting += more

    def __call__(self, descriptor: int, data: bytes) -> None:
        self._count(1)
        self._answers.wait()
        self._count(-1)
        self.write_all(descriptor, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(file, "_write_all", made)
    monkeypatch.setattr(file, "SEND_SECONDS", runs_out(0.5), raising=False)
    yield made
    made.go_on()


async def _sinks(server: Server) -> dict[str, pb.AuditSink]:
    return {each.name: each async for each in server.admin.audit.list_audit_sinks()}


async def _add(server: Server, name: str, kind: int, address: str) -> None:
    sink = pb.AuditSink(name=name, kind=kind, address=address)  # type: ignore[arg-type]
    await server.admin.audit.create_audit_sink(audit_sink=sink)


async def test_many_files_on_a_hanging_disk_do_not_affect_other_sinks(
    database: Database, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.05)
    folder = tmp_path / "sinks"
    folder.mkdir()
    names = [f"file-{number}" for number in range(THREADS)]
    disk.hang()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            running_server(
                database,
                tmp_path,
                with_cluster=False,
                outbound_networks="127.0.0.0/8",
                audit_sink_dir=folder,
            )
        )
        for name in names:
            await _add(server, name, pb.AUDIT_SINK_KIND_FILE, f"{name}.jsonl")

        async def waited_for() -> int:
            return disk.waiting

        await poll_until(waited_for, lambda waiting: waiting == THREADS)
        # The default thread pool still has a free thread.
        async with within(10.0):
            assert await asyncio.to_thread(threading.active_count) > THREADS
        receiver = await stack.enter_async_context(http_receiver())
        await _add(server, "healthy", pb.AUDIT_SINK_KIND_HTTP, receiver.url)
        await poll_until(lambda: _sinks(server), lambda found: found["healthy"].position > THREADS)

        def all_fail(found: dict[str, pb.AuditSink]) -> bool:
            return all(found[name].status == pb.AUDIT_SINK_STATUS_FAILING for name in names)

        found = await poll_until(lambda: _sinks(server), all_fail)
        assert {found[name].reason for name in names} == {"FILE"}
        assert "its disk hangs" in found[names[0]].message
        # A deleted sink does not delay another one, and each file has one thread however often its write is tried.
        await server.admin.audit.delete_audit_sink(name=names.pop())
        assert disk.waiting == THREADS
        disk.go_on()

        def has_all(found: dict[str, pb.AuditSink]) -> bool:
            return all(found[name].status == pb.AUDIT_SINK_STATUS_HEALTHY for name in names)

        await poll_until(lambda: _sinks(server), has_all, seconds=90.0)
        for name in names:
            lines = (folder / f"{name}.jsonl").read_bytes().splitlines()
            sequences = [json.loads(line)["metadata"]["sequence"] for line in lines]
            # The batch that was given up is sent again; nothing is left out, and the order is the log's.
            assert sorted(set(sequences)) == list(range(1, len(set(sequences)) + 1)), name
        disk.hang()
        await server.admin.identity.who_am_i()
        await poll_until(waited_for, lambda waiting: waiting == len(names))
        # The server ends although the disk hangs.
        async with within(10.0):
            await stack.aclose()
    assert disk.waiting == len(names)


async def test_a_write_that_was_given_up_ends_before_the_next_one(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads never write one file, and a write that was given up before it began writes nothing."""
    path = tmp_path / "audit.jsonl"
    writes = FileWrites()
    disk.hang()
    with pytest.raises(SinkFailed, match=r"not written within 0\.5 s"):
        await FileSender(path, writes).send([b"first"])
    with pytest.raises(SinkFailed, match=r"not written within 0\.5 s"):
        await FileSender(path, writes).send([b"second"])
    assert disk.waiting == 1
    monkeypatch.setattr(file, "SEND_SECONDS", patient(10.0))
    disk.go_on()
    await FileSender(path, writes).send([b"third"])
    assert path.read_bytes() == b"first\nthird\n"
    assert writes._running == {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


async def test_a_file_that_another_program_has_locked_is_left_alone(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock prevents an abandoned thread from cutting off lines that another server has written since."""
    path = tmp_path / "audit.jsonl"
    writes = FileWrites()
    with _locked(path):
        path.write_bytes(b"whole\nbegun")
        with pytest.raises(SinkFailed, match="another program holds its lock"):
            await FileSender(path, writes).send([b"late"])
        assert path.read_bytes() == b"whole\nbegun"

    async def has_ended() -> bool:
        return not writes._running

    # The thread has the lock now, but no caller waits for it.
    await poll_until(has_ended)
    assert path.read_bytes() == b"whole\nbegun"
    monkeypatch.setattr(file, "SEND_SECONDS", patient(10.0))
    await FileSender(path, writes).send([b"next"])
    assert path.read_bytes() == b"whole\nnext\n"


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_rotated_while_its_lock_is_awaited_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """The former holder of the lock may have rotated the file.

    But acknowledged records must be in the file of that name.
    """
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    path.write_bytes(b"first\n")
    lock = file._lock

    def lock_late(descriptor: int) -> None:
        if not old.exists():
            path.rename(old)
            if replaced:
                path.touch()
        lock(descriptor)

    monkeypatch.setattr(file, "_lock", lock_late)
    await FileSender(path, FileWrites()).send([b"second"])
    assert (old.read_bytes(), path.read_bytes()) == (b"first\n", b"second\n")


async def test_a_file_that_is_rotated_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setattr(file, "_lock", lambda _descriptor: path.unlink())
    with pytest.raises(SinkFailed, match="moves or deletes the file"):
        await FileSender(path, FileWrites()).send([b"x"])


async def test_the_number_of_threads_that_wait_for_a_disk_is_bounded(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "MOST_WRITES", 2)
    writes = FileWrites()
    disk.hang()
    for name in ("a", "b"):
        with pytest.raises(SinkFailed, match="not written within"):
            await FileSender(tmp_path / name, writes).send([b"x"])
    with pytest.raises(SinkFailed, match="too many writes wait"):
        await FileSender(tmp_path / "c", writes).send([b"x"])
    assert not (tmp_path / "c").exists()


async def test_a_path_that_is_no_regular_file_is_not_written(tmp_path: Path) -> None:
    """A pipe without a reader accepts a batch or two, and then blocks its writer."""
    os.mkfifo(tmp_path / "audit.jsonl")
    with pytest.raises(SinkFailed, match="is not a regular file"):
        await FileSender(tmp_path / "audit.jsonl", FileWrites()).send([b"x"])


_ENDS = """
import asyncio, sys
from pathlib import Path
from pilothouse_server.audit.sinks.senders import SinkFailed, file

file.SEND_SECONDS = 0.1

async def main():
    try:
        await file.FileSender(Path(sys.argv[1]), file.FileWrites()).send([b"x"])
    except SinkFailed as error:
        print(error.reason)

asyncio.run(main())
"""


async def test_a_process_ends_although_a_write_is_blocked(tmp_path: Path) -> None:
    """The thread is blocked in a system call here."""
    path = tmp_path / "audit.jsonl"
    with _locked(path):
        code, printed, errors = await finished(sys.executable, "-c", _ENDS, str(path))
    assert (code, printed, errors) == (0, b"FILE\n", b"")
