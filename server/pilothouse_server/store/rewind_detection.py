"""Rewind detection: whether the database continues from its last known state.

If it does not, a new history begins.

A database is rewound when a dump or snapshot is restored, or when a standby takes over that had not received
everything. It then gives the same revisions and sequences to other events and records, and a reader that
continues from an earlier number misses the new ones. The stream's head shows the rewind: it is lower than a
head that was seen before, or the mark at a known position differs. A copy that lost nothing has the same head
and marks, so it continues the history. A different system identifier, timeline or database oid is no proof;
the identities before and after are logged and recorded. A different record at a known position of the very
same database is tampering: only somebody who writes there can cause it. Then, too, a new history of events
begins, and no head of the audit log is signed until an operator has checked (`begin_new_history`).

The last known state is stored in a file of the data folder, so that it is known after a restart. The last
states of former histories are stored as well, because a database may return to one of them. The file is
written a second after the state changed: an older state is equally true, and loses one second of detection.
The mark in a resume token detects a rewind in that second for the token's holder.

Each pass of the feed compares the head, which costs nothing. The marks are verified at the start, after failures and
lost listeners, and whenever the pool has opened a connection: an open connection cannot lead to another database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import text

from pilothouse_server.errors import PilothouseError
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store.errors import database_unavailable
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

FILE_NAME = "database-position.json"
_KEEP_SECONDS = 1.0
_MOST_HISTORIES = 16
_WENT_BACK = "the database went back"
_TAMPERING = "somebody rewrote records of the audit log"
_LOOK = text(
    "SELECT h.history_id::text AS history, h.revision, h.audit_sequence AS sequence, h.event_mark AS mark, "
    "record_mark(h.audit_sequence) AS record_mark, event_mark(:revision) AS mark_there, "
    "record_mark(:sequence) AS record_mark_there, pg_is_in_recovery() AS standby, "
    "format('system %s, timeline %s, database %s', (SELECT system_identifier FROM pg_control_system()), "
    "(SELECT timeline_id FROM pg_control_checkpoint()), "
    "(SELECT oid FROM pg_database WHERE datname = current_database())) AS identity "
    "FROM stream_head AS h WHERE h.id = 1"
)
_BEGIN = text("SELECT begin_new_history(:reason, :seen, CAST(:expected AS uuid), :tampering)::text")


class StreamPosition(msgspec.Struct, frozen=True):
    """A position of the stream, and the identity of the database.

    It has the newest event and record with their marks in hex. `record_mark` belongs to the record `marked_sequence`,
    which is the newest or an earlier one.
    """

    history: str
    revision: int
    mark: str
    sequence: int
    marked_sequence: int
    record_mark: str
    identity: str = ""

    def broken_by(self, there: Any) -> str:
        """Returns the evidence that the database does not continue from this position.

        Returns '' if there is none. `there` is a row of `_LOOK`, in the same history.
        """
        if there.revision < self.revision:
            return f"revision {there.revision} after {self.revision}"
        if there.sequence < self.sequence:
            return f"record {there.sequence} after {self.sequence}"
        if there.mark_there is not None and there.mark_there.hex() != self.mark:
            return f"another event at revision {self.revision}"
        if self._has_another_record(there):
            return f"another record at {self.marked_sequence}"
        return ""

    def rewritten_in(self, there: Any) -> bool:
        """Returns whether the same database has another record at this position.

        It was rewritten then, not rewound.
        """
        return self.identity == there.identity and self._has_another_record(there)

    def _has_another_record(self, there: Any) -> bool:
        return there.record_mark_there is not None and there.record_mark_there.hex() != self.record_mark


class RewindDetector:
    """The last state of the database that one server knows.

    `path` is the file that stores it; with None, a restart forgets the state.
    """

    def __init__(self, store: Store, path: Path | None = None) -> None:
        self._store = store
        self._path = path
        # The last position in each history that was seen, the current history last.
        self._positions: dict[str, StreamPosition] = {}
        self._known: StreamPosition | None = None
        self._read = False
        self._unverified = True
        self._opened = -1
        self._moved = asyncio.Event()
        # Called after records were rewritten, with the new history and the evidence.
        self.on_tampering: Callable[[str, str], Awaitable[None]] | None = None

    def mark_unverified(self) -> None:
        """Makes the next pass verify the marks: another database may be answering."""
        self._unverified = True

    def must_verify(self, revision: int, sequence: int) -> bool:
        """Returns whether the marks must be verified for this head of the known history."""
        known = self._known
        return (
            self._unverified
            or self._opened != self._store.database.system.opened
            or (known is not None and (revision < known.revision or sequence < known.sequence))
        )

    async def check(self, history: str, revision: int, mark: bytes, sequence: int) -> bool:
        """Returns whether the head that a pass found continues from the known state.

        If it does not, a new history has begun, and the pass must be repeated.

        Raises:
            Unavailable: the database is unreachable, or is a standby that is behind.
        """
        if not self._read:
            self._positions, self._read = self._load(), True
        known = self._known
        if known is None or history != known.history:
            known = self._known = self._positions.get(history)
            self._unverified = True
        if known is None or self.must_verify(revision, sequence):
            opened = self._store.database.system.opened
            if not await self._look():
                return False
            self._unverified, self._opened = False, opened
        elif revision > known.revision or sequence > known.sequence:
            self._know(msgspec.structs.replace(known, revision=revision, mark=mark.hex(), sequence=sequence))
        return True

    async def keep(self) -> None:
        """Writes the known state whenever it has changed, until cancelled.

        It writes once more at the end.
        """
        if self._path is None:
            return
        try:
            while True:
                await self._moved.wait()
                await asyncio.sleep(_KEEP_SECONDS)
                self._moved.clear()
                await self._mark_record()
                # In a thread: replacing a file waits for the disk, for 50 ms while other processes write.
                await uncancelled(asyncio.to_thread(self._write, self._written_down()))
        finally:
            self._write(self._written_down())

    async def _look(self) -> bool:
        """Verifies the known position and adopts the database's.

        Returns False if a new history was begun instead.
        """
        known = self._known
        there = await self._there(known)
        if known is not None and there.history == known.history and (fault := known.broken_by(there)):
            if there.standby:
                # A standby is read-only, and may still reach the known state.
                raise database_unavailable()
            seen = f"{fault}; {known.identity} before, {there.identity} now"
            await self._begin(known, seen, tampering=known.rewritten_in(there))
            return False
        if known is not None and known.identity != there.identity:
            log.info(
                "another database responds now, and nothing was lost",
                before=known.identity,
                now=there.identity,
            )
        self._know(
            StreamPosition(
                there.history,
                there.revision,
                there.mark.hex(),
                there.sequence,
                there.sequence,
                (there.record_mark or b"").hex(),
                there.identity,
            )
        )
        return True

    async def _there(self, known: StreamPosition | None) -> Any:
        async with self._store.system_call() as connection:
            found = await connection.execute(
                _LOOK,
                {"revision": known.revision, "sequence": known.marked_sequence}
                if known is not None
                else {"revision": -1, "sequence": -1},
            )
            return found.one()

    def _know(self, position: StreamPosition) -> None:
        self._known = position
        self._positions.pop(position.history, None)
        self._positions[position.history] = position
        while len(self._positions) > _MOST_HISTORIES:
            del self._positions[next(iter(self._positions))]
        self._moved.set()

    async def _begin(self, known: StreamPosition, seen: str, *, tampering: bool) -> None:
        reason = _TAMPERING if tampering else _WENT_BACK
        async with self._store.system_call() as connection:
            begun = await connection.execute(
                _BEGIN,
                {"reason": reason, "seen": seen, "expected": known.history, "tampering": tampering},
            )
            history = begun.scalar_one()
        self._known = None
        if tampering:
            log.error(
                "records of the audit log were rewritten: no head is signed until a person begins a new history",
                history=history,
                seen=seen,
            )
            if self.on_tampering is not None:
                await self.on_tampering(history, seen)
            return
        log.warning("the database went back: a new history of events begins", history=history, seen=seen)

    async def _mark_record(self) -> None:
        """Updates the mark to that of the newest record.

        If that fails, the older mark stays, which is equally true.
        """
        known = self._known
        if known is None or known.marked_sequence == known.sequence:
            return
        try:
            there = await self._there(known)
        except PilothouseError:
            return
        # If the database was rewound in between, the next pass of the feed detects it.
        if self._known is not None and there.history == self._known.history and not known.broken_by(there):
            mark = (there.record_mark or b"").hex()
            self._known = msgspec.structs.replace(
                self._known, marked_sequence=there.sequence, record_mark=mark
            )
            self._positions[self._known.history] = self._known

    def _load(self) -> dict[str, StreamPosition]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            positions = msgspec.json.decode(self._path.read_bytes(), type=list[StreamPosition])
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the stored position in the database cannot be read", error=type(error).__name__)
            return {}
        return {position.history: position for position in positions}

    def _written_down(self) -> bytes:
        """Returns the content for the file; nothing if no state is known."""
        return msgspec.json.encode(list(self._positions.values())) if self._positions else b""

    def _write(self, content: bytes) -> None:
        """Writes the file.

        After an error it never tries again, so only the detection after a restart is lost. The file has a few thousand
        bytes, is not flushed, and nothing waits for it. `os.replace` leaves either the old or the new file, never half
        of both.
        """
        if self._path is None or not content:
            return
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.touch(mode=0o600)
            unfinished.write_bytes(content)
            os.replace(unfinished, self._path)
        except OSError as error:
            log.warning("the position in the database cannot be stored", error=type(error).__name__)
            self._path = None
