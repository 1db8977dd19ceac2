"""Records exported in the order of the log, each with what proves that it stands in one sealed head."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_server.audit import merkle, proofs
from pilothouse_server.audit.merkle import Prover
from pilothouse_server.event_loop import cooperatively
from pilothouse_server.store import audit_chain, audit_tree
from pilothouse_server.store.unit_of_work import Store

MOST_AT_ONCE = 512
# Of the records; one may go beyond it.
MOST_BYTES_AT_ONCE = 512 * 1024

# (after, upto, most) → rows of the log that the caller may see, by the rights that it has now
Read = Callable[[int, int, int], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Exported:
    """A record as it is hashed, with the hashes that lead to the head; none of the first releases' chain."""

    sequence: int
    record: bytes
    proof: bytes
    chain_hash: bytes | None


async def export(store: Store, read: Read, after: int, size: int) -> AsyncIterator[Sequence[Exported]]:
    """Yields the records beyond a place, up to those of the tree of a size. Raises FailedPrecondition, Unavailable."""
    async with store.system_read() as transaction:
        state = await audit_tree.read(transaction)
    upto = state.chain_length + size - 1
    while after < upto:
        rows = await read(after, upto, MOST_AT_ONCE)
        if not rows:
            return
        indexes = [row.sequence - state.chain_length for row in rows if row.sequence > state.chain_length]
        prover = await _prover(store, state, indexes, size)
        found: list[Exported] = []
        size_bytes = 0
        async for row in cooperatively(rows):
            found.append(_exported(row, state.chain_length, prover))
            size_bytes += len(found[-1].record)
            if size_bytes >= MOST_BYTES_AT_ONCE:
                yield found
                found, size_bytes = [], 0
        if found:
            yield found
        after = rows[-1].sequence


async def _prover(store: Store, state: audit_tree.TreeState, indexes: Sequence[int], size: int) -> Prover:
    # Leaves of one tile share the way from the tile to the root.
    firsts = {index // merkle.WIDTH: index for index in indexes}
    spans = [span for index in firsts.values() for span in merkle.inclusion_spans(index, size)]
    spans += [(index, index + 1) for index in firsts.values()]
    async with store.system_read() as transaction:
        return Prover(await proofs.nodes(transaction, state, spans), size)


def _exported(row: Any, chain_length: int, prover: Prover) -> Exported:
    record = audit_chain.canonical_stored(audit_chain.stored_row(row))
    if row.sequence <= chain_length:
        return Exported(row.sequence, record, b"", bytes(row.chain_hash))
    return Exported(row.sequence, record, prover.proof(row.sequence - chain_length), None)
