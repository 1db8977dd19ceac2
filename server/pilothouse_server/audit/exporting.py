"""Exports records in the order of the log, each with the proof that one sealed head covers it.

Many exports may run concurrently, and readers may be slow. So each export keeps little data in memory: it reads the
records of one response, and decodes a record's texts only when it puts the record into the response.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pilothouse_server.audit import merkle, proofs
from pilothouse_server.audit.merkle import NotInTreeError, Prover
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store import audit_records, audit_tree
from pilothouse_server.store.unit_of_work import Store

MOST_AT_ONCE = 512
# The size of the records of one response, which the last record may exceed.
MOST_BYTES_AT_ONCE = 512 * 1024

# The fields of a record that are JSON and may be read as text.
_JSON = ("request_body", "request_headers", "response_body", "metadata")
_decode = msgspec.json.Decoder().decode
# (after, upto, most) → rows of the log that the caller may see with its present rights
Read = Callable[[int, int, int], Awaitable[list[Any]]]


@dataclass(frozen=True, slots=True)
class Exported:
    """A record as it is hashed, with the hashes that lead from its leaf to the head."""

    sequence: int
    record: bytes
    proof: bytes


async def export(store: Store, read: Read, after: int, size: int) -> AsyncIterator[list[Exported]]:
    """Yields the records after `after` that a tree of `size` leaves covers; the caller may empty each list.

    Raises FailedPrecondition, Unavailable.
    """
    async with store.system_read() as transaction:
        state = await audit_tree.read(transaction)
    while after < size:
        rows = await read(after, size, MOST_AT_ONCE)
        if not rows:
            return
        prover = await _prover(store, state, [row.sequence - 1 for row in rows], size)
        found: list[Exported] = []
        size_bytes, share = 0, Share()
        after = rows[-1].sequence
        rows.reverse()
        while rows:
            await share.used()
            found.append(_exported(rows.pop(), prover))
            size_bytes += len(found[-1].record)
            if size_bytes >= MOST_BYTES_AT_ONCE:
                yield found
                found, size_bytes = [], 0
        if found:
            yield found


async def _prover(store: Store, state: audit_tree.TreeState, indexes: Sequence[int], size: int) -> Prover:
    # Leaves of one tile share the path from the tile to the root.
    firsts = {index // merkle.WIDTH: index for index in indexes}
    spans = [span for index in firsts.values() for span in merkle.inclusion_spans(index, size)]
    spans += [(index, index + 1) for index in firsts.values()]
    async with store.system_read() as transaction:
        return Prover(await proofs.nodes(transaction, state, spans), size)


def _exported(row: Any, prover: Prover) -> Exported:
    fields = audit_records.stored_row(row)
    fields |= {name: _decode(fields[name]) for name in _JSON if isinstance(fields[name], str)}
    record = audit_records.canonical_stored(fields)
    try:
        return Exported(row.sequence, record, prover.proof(row.sequence - 1))
    except NotInTreeError:
        raise proofs.damaged() from None
