"""All SQL about the tree over the audit log: its size, tiles, and sealed heads.

`audit.merkle` describes the tree; the record of sequence n is its leaf n - 1. The server that grows it locks the one
row of `audit_tree` for milliseconds, and takes no other lock after that one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_STATE = (
    "SELECT t.log_id::text AS log_id, t.origin, t.history_id::text AS history, t.size, "
    "t.edge, t.origins, t.stopped_history::text AS stopped_history, t.stopped_reason, "
    "h.history_id::text AS head_history, h.audit_sequence AS newest "
    "FROM audit_tree AS t CROSS JOIN stream_head AS h WHERE t.id = 1 AND h.id = 1"
)
_READ = text(_STATE)
_TAKE = text("SELECT id FROM audit_tree WHERE id = 1 FOR UPDATE")
_STOP = text(
    "UPDATE audit_tree SET stopped_history = CAST(:history AS uuid), stopped_reason = :reason "
    "WHERE id = 1 AND stopped_history IS DISTINCT FROM CAST(:history AS uuid) RETURNING id"
)
_ADD_ORIGIN = text(
    "UPDATE audit_tree SET origins = origins || CAST(:origin AS text) WHERE id = 1 AND origins[cardinality(origins)] "
    "IS DISTINCT FROM CAST(:origin AS text)"
)
_NAME = text("UPDATE audit_tree SET origin = :origin WHERE id = 1 AND origin IS NULL")
_ENTRIES = text(
    "SELECT sequence, record_hash FROM operation_logs WHERE sequence > :after AND sequence <= :upto "
    "ORDER BY sequence, id"
)
_GROW = text("UPDATE audit_tree SET size = :size, edge = CAST(:edge AS bytea[]) WHERE id = 1")
_PUT_TILES = text(
    "INSERT INTO audit_tiles (level, position, hashes) "
    "SELECT w.level, w.position, w.hashes "
    "FROM unnest(CAST(:levels AS smallint[]), CAST(:positions AS bigint[]), CAST(:hashes AS bytea[])) "
    "AS w(level, position, hashes)"
)
_TILES = text(
    "SELECT t.level, t.position, t.hashes "
    "FROM unnest(CAST(:levels AS smallint[]), CAST(:positions AS bigint[])) AS w(level, position) "
    "JOIN audit_tiles AS t ON t.level = w.level AND t.position = w.position"
)
_SEAL_COLUMNS = "size, root, note, sealed_at"
_PUT_SEAL = text(
    "INSERT INTO audit_seals (size, root, note) VALUES (:size, :root, :note) "
    "ON CONFLICT (size) DO NOTHING RETURNING size, root, note, sealed_at"
)
_PUT_NOTE = text("UPDATE audit_seals SET note = :note WHERE size = :size AND note = :before RETURNING size")
_NEWEST_SEAL = text(f"SELECT {_SEAL_COLUMNS} FROM audit_seals ORDER BY size DESC LIMIT 1")  # noqa: S608 - ours
_NEWEST_SEALS = text(f"SELECT {_SEAL_COLUMNS} FROM audit_seals ORDER BY size DESC LIMIT :most")  # noqa: S608 - ours
_SEAL_AT = text(f"SELECT {_SEAL_COLUMNS} FROM audit_seals WHERE size = :size")  # noqa: S608 - ours
_NEWEST_SEALS_OF = text(
    f"SELECT {_SEAL_COLUMNS} FROM audit_seals WHERE starts_with(note, :beginning) ORDER BY size DESC LIMIT :most"  # noqa: S608 - ours
)
_SEALS_AFTER = text(
    f"SELECT {_SEAL_COLUMNS} FROM audit_seals WHERE size > :after ORDER BY size LIMIT :most"  # noqa: S608 - ours
)


@dataclass(frozen=True, slots=True)
class TreeState:
    """The tree, and the head of the log.

    `newest` is the newest record's sequence, `head_history` the database's history, and `history` the history in which
    the tree began. `edge` contains the tiles that are not full, by level. `origins` are the names under which heads
    were signed. No head is signed while `stopped_history` is the database's history.
    """

    log_id: str
    origin: str | None
    history: str
    head_history: str
    size: int
    edge: Sequence[bytes]
    newest: int
    origins: Sequence[str] = ()
    stopped_history: str | None = None
    stopped_reason: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether no head may be signed until an operator begins another history."""
        return self.stopped_history == self.head_history


@dataclass(frozen=True, slots=True)
class Seal:
    """A head that was signed."""

    size: int
    root: bytes
    note: str
    sealed_at: datetime


async def read(transaction: ReadTransaction) -> TreeState:
    """Reads the tree. Raises FailedPrecondition if its row is missing."""
    return _state((await transaction.connection.execute(_READ)).one_or_none())


async def take(transaction: Transaction) -> TreeState:
    """Locks the tree until the transaction ends, and reads it. Raises as `read`.

    The tree is read by a later statement than the one that waits for the lock, so the history is current.
    """
    await transaction.connection.execute(_TAKE)
    return await read(transaction)


async def stop(transaction: Transaction, history: str, reason: str) -> bool:
    """Stops the signing of heads while this is the database's history.

    Returns False if it is stopped already.
    """
    found = await transaction.connection.execute(_STOP, {"history": history, "reason": reason})
    return found.first() is not None


async def name(transaction: Transaction, origin: str) -> None:
    """Sets the log's name, unless it has one."""
    await transaction.connection.execute(_NAME, {"origin": origin})


async def record_hashes(transaction: ReadTransaction, after: int, upto: int) -> dict[int, bytes]:
    """Returns the hashes of the records after `after` up to `upto`, by sequence.

    Missing records are left out.
    """
    found: dict[int, bytes] = {}
    for row in await transaction.connection.execute(_ENTRIES, {"after": after, "upto": upto}):
        found.setdefault(row.sequence, bytes(row.record_hash))
    return found


async def grow(
    transaction: Transaction, size: int, edge: Sequence[bytes], full: Collection[tuple[int, int, bytes]]
) -> None:
    """Writes a tree that has grown.

    It takes the new size, the tiles that are not full, and the tiles that are full now (level, position, hashes).
    """
    if full:
        levels, positions, hashes = zip(*full, strict=True)
        await transaction.connection.execute(
            _PUT_TILES, {"levels": list(levels), "positions": list(positions), "hashes": list(hashes)}
        )
    await transaction.connection.execute(_GROW, {"size": size, "edge": list(edge)})


async def tiles(
    transaction: ReadTransaction, places: Collection[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Returns the full tiles by (level, position); missing ones are left out."""
    if not places:
        return {}
    levels, positions = zip(*places, strict=True)
    found = await transaction.connection.execute(
        _TILES, {"levels": list(levels), "positions": list(positions)}
    )
    return {(row.level, row.position): bytes(row.hashes) for row in found}


async def put_seal(transaction: Transaction, size: int, root: bytes, note: str) -> Seal:
    """Stores a head, and the name of its log.

    Returns it, or the head of that size that is stored already.
    """
    await transaction.connection.execute(_ADD_ORIGIN, {"origin": note.split("\n", 1)[0]})
    found = (
        await transaction.connection.execute(_PUT_SEAL, {"size": size, "root": root, "note": note})
    ).one_or_none()
    return _seal(found or (await transaction.connection.execute(_SEAL_AT, {"size": size})).one())


async def put_note(transaction: Transaction, size: int, before: str, note: str) -> bool:
    """Replaces the note of a head by one with more signatures.

    Returns False if the stored note is not `before`.
    """
    parameters = {"size": size, "before": before, "note": note}
    return (await transaction.connection.execute(_PUT_NOTE, parameters)).first() is not None


async def newest_seal(transaction: ReadTransaction) -> Seal | None:
    """Returns the newest signed head, if there is one."""
    found = (await transaction.connection.execute(_NEWEST_SEAL)).one_or_none()
    return None if found is None else _seal(found)


async def newest_seals(transaction: ReadTransaction, *, most: int) -> Sequence[Seal]:
    """Returns at most `most` of the newest signed heads, the largest first."""
    return [_seal(row) for row in await transaction.connection.execute(_NEWEST_SEALS, {"most": most})]


async def newest_seals_of(transaction: ReadTransaction, origin: str, *, most: int) -> Sequence[Seal]:
    """Returns the newest heads of an origin, the largest first.

    There are at most `most`; their notes name the origin.
    """
    rows = await transaction.connection.execute(_NEWEST_SEALS_OF, {"beginning": f"{origin}\n", "most": most})
    return [_seal(row) for row in rows]


async def seal_at(transaction: ReadTransaction, size: int) -> Seal | None:
    """Returns the signed head of this size, if there is one."""
    found = (await transaction.connection.execute(_SEAL_AT, {"size": size})).one_or_none()
    return None if found is None else _seal(found)


async def seals_after(transaction: ReadTransaction, size: int, *, most: int) -> Sequence[Seal]:
    """Returns at most `most` heads of trees larger than `size`, the smallest first."""
    rows = await transaction.connection.execute(_SEALS_AFTER, {"after": size, "most": most})
    return [_seal(row) for row in rows]


def _state(row: Any) -> TreeState:
    if row is None:
        raise FailedPrecondition(
            "the tree over the audit log is missing from the database, so the log's records are unproven",
            reason="AUDIT_LOG_DAMAGED",
        )
    return TreeState(
        log_id=row.log_id,
        origin=row.origin,
        history=row.history,
        head_history=row.head_history,
        size=row.size,
        edge=[bytes(level) for level in row.edge],
        newest=row.newest,
        origins=list(row.origins),
        stopped_history=row.stopped_history,
        stopped_reason=row.stopped_reason,
    )


def _seal(row: Any) -> Seal:
    return Seal(row.size, bytes(row.root), row.note, row.sealed_at)
