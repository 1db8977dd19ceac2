"""The last head of each history that this server signed or accepted, in memory and in a file of the data folder.

Anyone who may change the database may change the log together with its heads. So the copy that a server
compares the log with must be elsewhere: the server keeps the last signed note itself, as the logs of
Certificate Transparency do. The file is replaced in one step and is on the disk before the head is published.
A head in the file may be older than the last one, because several processes write it, but it is equally valid.

A stop of sealing is kept, too, so that clearing it in the database does not end the stop.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from pilothouse_server.audit import notes
from pilothouse_server.audit.notes import Checkpoint, NoteError
from pilothouse_server.runtime.tasks import uncancelled

log = structlog.get_logger(__name__)

FILE_NAME = "audit-heads.json"
_MOST_HISTORIES = 16


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A signed head, and its history of the database."""

    history: str
    note: str
    checkpoint: Checkpoint


class _File(msgspec.Struct):
    """The content of the file: a note for each history, the newest last, and the reason why sealing stopped
    in a history.
    """

    heads: dict[str, str] = msgspec.field(default_factory=dict)
    stopped: dict[str, str] = msgspec.field(default_factory=dict)


class KeptHeads:
    """The heads that one server keeps. `path` is the file; None: nothing outlives the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._heads: dict[str, KeptHead] = {}
        self._stopped: dict[str, str] = {}
        self._read = False

    def of(self, history: str) -> KeptHead | None:
        """Returns the last head of a history; None if this server has seen none."""
        self._load()
        return self._heads.get(history)

    def newest(self) -> KeptHead | None:
        """Returns the last head of all."""
        self._load()
        return next(reversed(self._heads.values()), None)

    def stop_of(self, history: str) -> str:
        """Returns why no head of a history is signed any more; '' if heads are signed."""
        self._load()
        return self._stopped.get(history, "")

    async def keep(self, history: str, note: str) -> None:
        """Stores a head; it is on the disk on return."""
        known = self.of(history)
        if known is not None and known.note == note:
            return
        self._heads.pop(history, None)
        self._heads[history] = KeptHead(history, note, notes.parse(note)[0])
        while len(self._heads) > _MOST_HISTORIES:
            del self._heads[next(iter(self._heads))]
        await self._write()

    async def stop(self, history: str, reason: str) -> None:
        """Stores that no head of a history may be signed any more; it is on the disk on return."""
        if self.stop_of(history):
            return
        self._stopped[history] = reason
        while len(self._stopped) > _MOST_HISTORIES:
            del self._stopped[next(iter(self._stopped))]
        await self._write()

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        if self._path is None or not self._path.exists():
            return
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
            self._heads = {
                history: KeptHead(history, note, notes.parse(note)[0])
                for history, note in found.heads.items()
            }
            self._stopped = found.stopped
        except (OSError, msgspec.DecodeError, NoteError) as error:
            log.warning(
                "the last heads of the audit log cannot be read; those in the database are trusted",
                file=str(self._path),
                error=type(error).__name__,
            )

    async def _write(self) -> None:
        content = _File({each.history: each.note for each in self._heads.values()}, dict(self._stopped))
        # In a thread, since the disk may be slow.
        await uncancelled(asyncio.to_thread(self._replace, msgspec.json.encode(content)))

    def _replace(self, content: bytes) -> None:
        """Replaces the file. If the folder cannot be written, only the comparison after a restart is lost."""
        if self._path is None:
            return
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(unfinished, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            log.warning("the last head of the audit log cannot be stored", error=type(error).__name__)
            self._path = None
