"""Detects whether the database continues from its last known state; if it was rewound, a new history begins.

A database goes back by a restored dump or snapshot, or where a standby that had not got everything takes
over. Then it gives the same revisions and sequences to other events and records, and a reader that continues
from an earlier number misses the new ones. The stream's head shows it: one lower than a head that was seen
before, or another mark at a known position. A copy that lost nothing has the same head and marks, and
continues. Another identifier of the system, another timeline or another database are hints, and stand in the
record. Another record at a known place of the very same database is tampering: only somebody who writes there
can cause it. Events start over then, too, and no head of the audit log is signed before a person has looked
(`begin_new_history`).

The last seen state is kept in a file of the data folder, so that it is known after a restart. So are those of
former histories, for a database may go back to one of them. It is written lazily, a second after it changed:
an older state is equally true, and loses one second of detection. The mark in a resume token detects the rest
for its holder.

Each pass of the feed compares its head, which costs nothing. The marks are looked up at the start, after failures and
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


class Place(msgspec.Struct, frozen=True):
    """Where the stream stood: newest event and record with their marks in hex, and in which database.

    `marked_sequence` is the record with `record_mark`, at or before the newest.
    """

    history: str
    revision: int
    mark: str
    sequence: int
    marked_sequence: int
    record_mark: str
    identity: str = ""

    def broken_by(self, there: Any) -> str:
        """Returns the evidence that the database no longer continues from this place; '' if there is none.

        `there` is a row of the look at the database, in the same history.
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
        """Returns whether the same database has another record at the place: it did not go back, it was rewritten."""
        return self.identity == there.identity and self._has_another_record(there)

    def _has_another_record(self, there: Any) -> bool:
        return there.record_mark_there is not None and there.record_mark_there.hex() != self.record_mark


class Continuity:
    """The last state of the database that one server knows. `path` is its file; None: it is not kept over a
    restart.
    """

    def __init__(self, store: Store, path: Path | None = None) -> None:
        self._store = store
        self._path = path
        # The place in each history that was seen, the present one last.
        self._places: dict[str, Place] = {}
        self._known: Place | None = None
        self._read = False
        self._doubtful = True
        self._opened = -1
        self._moved = asyncio.Event()
        # Called with the history that was begun because records were rewritten, and the evidence.
        self.on_tampering: Callable[[str, str], Awaitable[None]] | None = None

    def doubt(self) -> None:
        """Has the marks looked up with the next pass: it may be another database that answers."""
        self._doubtful = True

    def is_in_doubt(self, revision: int, sequence: int) -> bool:
        """Returns whether a head of the known history requires a check of the marks."""
        known = self._known
        return (
            self._doubtful
            or self._opened != self._store.database.system.opened
            or (known is not None and (revision < known.revision or sequence < known.sequence))
        )

    async def goes_on(self, history: str, revision: int, mark: bytes, sequence: int) -> bool:
        """Returns whether the head that a pass found continues from the known state.

        If it does not, a new history has been begun, and the pass has to be repeated.

        Raises:
            Unavailable: the database is away, or is a standby that is behind.
        """
        if not self._read:
            self._places, self._read = self._load(), True
        known = self._known
        if known is None or history != known.history:
            known = self._known = self._places.get(history)
            self._doubtful = True
        if known is None or self.is_in_doubt(revision, sequence):
            opened = self._store.database.system.opened
            if not await self._look():
                return False
            self._doubtful, self._opened = False, opened
        elif revision > known.revision or sequence > known.sequence:
            self._know(msgspec.structs.replace(known, revision=revision, mark=mark.hex(), sequence=sequence))
        return True

    async def keep(self) -> None:
        """Writes the known state whenever it has changed, until cancelled, and once more at the end."""
        if self._path is None:
            return
        try:
            while True:
                await self._moved.wait()
                await asyncio.sleep(_KEEP_SECONDS)
                self._moved.clear()
                await self._mark_record()
                # By a thread: to replace a file waits for the disk, for a twentieth of a second where others write.
                await uncancelled(asyncio.to_thread(self._write, self._written_down()))
        finally:
            self._write(self._written_down())

    async def _look(self) -> bool:
        """Looks the place up that is known, and takes the database's; False where a new history was begun instead."""
        known = self._known
        there = await self._there(known)
        if known is not None and there.history == known.history and (fault := known.broken_by(there)):
            if there.standby:
                # It cannot be written, and may still reach the known state.
                raise database_unavailable()
            seen = f"{fault}; {known.identity} before, {there.identity} now"
            await self._begin(known, seen, tampering=known.rewritten_in(there))
            return False
        if known is not None and known.identity != there.identity:
            log.info(
                "another database answers, which lost nothing", before=known.identity, now=there.identity
            )
        self._know(
            Place(
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

    async def _there(self, known: Place | None) -> Any:
        async with self._store.system_call() as connection:
            found = await connection.execute(
                _LOOK,
                {"revision": known.revision, "sequence": known.marked_sequence}
                if known is not None
                else {"revision": -1, "sequence": -1},
            )
            return found.one()

    def _know(self, place: Place) -> None:
        self._known = place
        self._places.pop(place.history, None)
        self._places[place.history] = place
        while len(self._places) > _MOST_HISTORIES:
            del self._places[next(iter(self._places))]
        self._moved.set()

    async def _begin(self, known: Place, seen: str, *, tampering: bool) -> None:
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
        """Brings the mark of the newest record up to date; one that is older is as true."""
        known = self._known
        if known is None or known.marked_sequence == known.sequence:
            return
        try:
            there = await self._there(known)
        except PilothouseError:
            return
        # The next pass of the feed finds a rewind that happened in between.
        if self._known is not None and there.history == self._known.history and not known.broken_by(there):
            mark = (there.record_mark or b"").hex()
            self._known = msgspec.structs.replace(
                self._known, marked_sequence=there.sequence, record_mark=mark
            )
            self._places[self._known.history] = self._known

    def _load(self) -> dict[str, Place]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            places = msgspec.json.decode(self._path.read_bytes(), type=list[Place])
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the last place in the database is not known", error=type(error).__name__)
            return {}
        return {place.history: place for place in places}

    def _written_down(self) -> bytes:
        """Returns the content for the file; nothing if no state is known."""
        return msgspec.json.encode(list(self._places.values())) if self._places else b""

    def _write(self, content: bytes) -> None:
        """Writes the file, or gives up: a folder that cannot be written costs detection, not the server.

        It is a few thousand bytes that nobody waits for, and not flushed: the file is old or new, never half of both.
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
            log.warning("the place in the database cannot be kept", error=type(error).__name__)
            self._path = None
