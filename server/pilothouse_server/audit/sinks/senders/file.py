"""A file of JSON lines in the folder of the setting `audit_sink_dir`, rotated by size.

A batch is acknowledged once it is on the disk (fsync). A line that a kill cut off is removed before the next batch is
written: it was not acknowledged, so it is sent again. A full file is renamed to its name, a dot and the time, and a new
file begins. The sink limits the number of such files; 0 keeps all.

One server at a time writes: it has the sink's lease, and holds a lock on the file. If several machines serve, they
either share the folder, or each has a part of the log, in order, and with repetitions if the lease has moved.

A disk may hang, such as a network disk whose server is down, and nothing can end a thread that waits for it. So each
file is written by threads of its own, one at a time. Nothing else uses these threads, and a server does not wait for
them when it ends. A batch that is not on the disk in time fails: the sink is marked failed, and the next server that
leases it tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pilothouse_server.audit.sinks.senders import SEND_SECONDS, SinkFailed

DEFAULT_ROTATE_BYTES = 64 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
# The most threads of a server that wait for the disk; each has one batch in memory.
MOST_WRITES: Final = 64
# The most attempts to open a file that is renamed during the opening.
_MOST_OPENED: Final = 5
# The errors of a file system without locks. Then only the lease excludes other writers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

# Returns whether the caller no longer waits for the write.
GivenUp = Callable[[], bool]


class FileWrites:
    """The threads that write the files of one server: one for each file, which may wait for the disk for ever."""

    def __init__(self) -> None:
        self._running: dict[Path, asyncio.Future[None]] = {}

    async def run(self, path: Path, write: Callable[[GivenUp], None]) -> None:
        """Runs `write` in a thread, and returns once it has ended.

        The thread is given up after SEND_SECONDS, or if the caller is cancelled; it may still run then.

        Raises:
            OSError: `write` failed; TimeoutError: it, or the write of this file before it, has not ended in time.
            SinkFailed: too many writes hang already, or `write` raised it.
        """
        given_up = threading.Event()
        async with asyncio.timeout(SEND_SECONDS):
            while (before := self._running.get(path)) is not None:
                await asyncio.wait([before])
            if len(self._running) >= MOST_WRITES:
                raise SinkFailed("FILE", "too many writes wait for the disk already")
            done = self._begun(path, lambda: write(given_up.is_set))
            try:
                await asyncio.shield(done)
            finally:
                given_up.set()

    def _begun(self, path: Path, work: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            del self._running[path]
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
                # Marks the error as retrieved, because nobody may wait for it any more.
                done.exception()

        def run() -> None:
            failure: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - passed to the caller that waits
                failure = error
            # The loop may have ended before the thread finishes.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, failure)

        # A daemon thread: the process does not wait for it at its end, as it would for the threads of a pool.
        threading.Thread(target=run, name=f"sink {path.name}", daemon=True).start()
        self._running[path] = done
        return done


class FileSender:
    """Appends to one file, through the server's `writes`."""

    def __init__(self, path: Path, writes: FileWrites, rotate_bytes: int = 0, keep_files: int = 0) -> None:
        self._path = path
        self._writes = writes
        self._rotate_bytes = rotate_bytes or DEFAULT_ROTATE_BYTES
        self._keep_files = keep_files

    async def send(self, items: Sequence[bytes]) -> None:
        """Returns once the lines are on the disk. Raises SinkFailed."""
        lines = b"".join(item + b"\n" for item in items)
        try:
            await self._writes.run(self._path, lambda given_up: self._append(lines, given_up))
        except TimeoutError:
            raise SinkFailed(
                "FILE",
                f"the file is not written within {SEND_SECONDS:g} s: its disk hangs, or another program holds its lock",
            ) from None
        except OSError as error:
            raise SinkFailed("FILE", f"the file cannot be written: {os.strerror(error.errno or 0)}") from None

    async def close(self) -> None:
        """Does nothing: no file is open."""

    def _append(self, lines: bytes, given_up: GivenUp) -> None:
        descriptor = self._opened()
        try:
            # Another server may write the file by now, and this one might cut off a line that the other has begun.
            if given_up():
                return
            size = _without_torn_line(descriptor)
            if size and size + len(lines) > self._rotate_bytes:
                os.fsync(descriptor)
                os.close(descriptor)
                descriptor = -1
                self._rotate()
                descriptor = self._opened()
                size = 0
            if given_up():
                return
            _write_all(descriptor, lines)
            os.fsync(descriptor)
            if size == 0:
                _sync_folder(self._path.parent)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _opened(self) -> int:
        """Returns the file, opened and locked. Raises OSError, SinkFailed."""
        for _ in range(_MOST_OPENED):
            descriptor = self._locked()
            if self._stands_there(descriptor):
                return descriptor
            os.close(descriptor)
        raise SinkFailed("FILE", "another program moves or deletes the file each time it is opened")

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            # A pipe accepts what nobody reads until it is full, and then nothing more.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SinkFailed("FILE", "the path is not a regular file")
            _lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _stands_there(self, descriptor: int) -> bool:
        """Returns whether the path still leads to this file.

        The previous holder of the lock may have renamed or removed the file. Writes to it would then be lost.
        """
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        os.rename(self._path, self._path.with_name(f"{self._path.name}.{moment}"))
        _sync_folder(self._path.parent)
        if self._keep_files:
            old = sorted(self._path.parent.glob(f"{self._path.name}.[0-9]*T[0-9]*Z"))
            for path in old[: -self._keep_files]:
                path.unlink(missing_ok=True)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _without_torn_line(descriptor: int) -> int:
    """Cuts off the text after the last line break; returns the remaining size."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _TAIL_BYTES)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)
    return end


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
