"""A file of JSON lines in the folder of the setting `audit_sink_dir`, rotated by size.

A batch is acknowledged once it is on the disk (fsync). A line that a kill cut off is taken away before the next batch
is written: it was not acknowledged, so it is written again. A file that is full is renamed to its name, a dot and the
time, and a new one begins; how many of those are kept is the sink's, 0 keeps all.

One server at a time writes, by the sink's lease; where several machines serve, the folder is one that they share, or
each has a part of the log, in order and with repetitions where the lease has moved.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pilothouse_server.audit_sinks.senders import SinkFailed
from pilothouse_server.tasks import uncancelled

DEFAULT_ROTATE_BYTES = 64 * 1024 * 1024
_TAIL_BYTES = 64 * 1024


class FileSender:
    """Appends to one file; what touches the disk runs in a thread."""

    def __init__(self, path: Path, rotate_bytes: int = 0, keep_files: int = 0) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes or DEFAULT_ROTATE_BYTES
        self._keep_files = keep_files

    async def send(self, items: Sequence[bytes]) -> None:
        """Returns once the lines are on the disk. Raises SinkFailed."""
        try:
            # A write that has begun is finished: two threads must not write one file.
            await uncancelled(asyncio.to_thread(self._append, b"".join(item + b"\n" for item in items)))
        except OSError as error:
            raise SinkFailed("FILE", f"the file cannot be written: {os.strerror(error.errno or 0)}") from None

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, lines: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            size = _without_torn_line(descriptor)
            if size and size + len(lines) > self._rotate_bytes:
                os.fsync(descriptor)
                os.close(descriptor)
                descriptor = -1
                self._rotate()
                descriptor = os.open(self._path, flags, 0o600)
                size = 0
            _write_all(descriptor, lines)
            os.fsync(descriptor)
            if size == 0:
                _sync_folder(self._path.parent)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _rotate(self) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        os.rename(self._path, self._path.with_name(f"{self._path.name}.{moment}"))
        _sync_folder(self._path.parent)
        if self._keep_files:
            old = sorted(self._path.parent.glob(f"{self._path.name}.[0-9]*T[0-9]*Z"))
            for path in old[: -self._keep_files]:
                path.unlink(missing_ok=True)


def _without_torn_line(descriptor: int) -> int:
    """Cuts off what follows the last line break; returns the size that is left."""
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
