"""Proofs from the tree over the audit log: that a record is in it, and that a head continues an earlier one."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from pilothouse_server.audit import merkle, notes
from pilothouse_server.audit.log_identity import LogIdentity, name_of, origin_of
from pilothouse_server.audit.merkle import Edge, Nodes, NotInTreeError, Span
from pilothouse_server.audit.notes import Checkpoint, NoteError
from pilothouse_server.errors import FailedPrecondition, invalid, not_found
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import Seal, TreeState
from pilothouse_server.store.unit_of_work import ReadTransaction


class History(msgspec.Struct, frozen=True):
    """An origin that heads of the log were signed under, and its keys."""

    origin: str
    verifier_keys: tuple[str, ...]


class Head(msgspec.Struct, frozen=True):
    """A sealed head, with the facts about the log that a verifier needs; hashes are in hexadecimal.

    `witnesses` names the witnesses that have signed it; `witnessed`: whether there are as many as the policy requires.
    """

    origin: str
    size: int
    root_hash: str
    checkpoint: str
    seal_time: datetime
    verifier_keys: tuple[str, ...]
    witnesses: tuple[str, ...]
    witnessed: bool
    histories: tuple[History, ...]


def head_of(seal: Seal, state: TreeState, identity: LogIdentity) -> Head:
    """Returns a head as callers get it."""
    witnesses = tuple(key.name for key in identity.policy.signed_by(seal.note))
    return Head(
        origin=notes.parse(seal.note)[0].origin,
        size=seal.size,
        root_hash=seal.root.hex(),
        checkpoint=seal.note,
        seal_time=seal.sealed_at,
        verifier_keys=_keys(identity, origin_of(state)),
        witnesses=witnesses,
        witnessed=len(witnesses) >= identity.policy.wanted,
        histories=tuple(
            History(origin, _keys(identity, origin)) for origin in identity.signed_origins(state)
        ),
    )


def _keys(identity: LogIdentity, origin: str) -> tuple[str, ...]:
    return tuple(str(signer.verifier) for signer in identity.signers(origin))


async def sealed_head(transaction: ReadTransaction, size: int) -> Seal:
    """Returns the head of a size. Raises NotFound."""
    found = await audit_tree.seal_at(transaction, size)
    if found is None:
        raise not_found("audit head", str(size))
    return found


async def nodes(transaction: ReadTransaction, state: TreeState, spans: Iterable[Span]) -> Nodes:
    """Returns the nodes of the tree that the hashes over these spans need. `state` was read before."""
    edge = Edge(state.size, state.edge).tiles()
    wanted = merkle.places(spans)
    # A tile that became full after the state was read is in both results; the edge has all hashes needed of it.
    stored = await audit_tree.tiles(transaction, wanted - {place for place, hashes in edge.items() if hashes})
    return Nodes({**stored, **{place: hashes for place, hashes in edge.items() if hashes}})


async def inclusion(transaction: ReadTransaction, state: TreeState, index: int, size: int) -> Sequence[bytes]:
    """Returns the hashes that lead from a leaf to the root of the tree of a size. Raises FailedPrecondition."""
    return await _proof(transaction, state, merkle.inclusion_spans(index, size))


async def consistency(
    transaction: ReadTransaction, state: TreeState, first: int, second: int
) -> Sequence[bytes]:
    """Returns the hashes that prove that the tree of the second size begins with that of the first.

    Raises FailedPrecondition.
    """
    if not 0 < first <= second:
        raise invalid("first_size", f"must be from 1 to {second}, the size of the later head")
    return await _proof(transaction, state, merkle.consistency_spans(first, second))


async def root(transaction: ReadTransaction, state: TreeState, size: int) -> bytes:
    """Returns the root of the tree of a size. Raises FailedPrecondition."""
    (found,) = await _proof(transaction, state, [(0, size)])
    return found


async def _proof(transaction: ReadTransaction, state: TreeState, spans: Sequence[Span]) -> list[bytes]:
    try:
        return (await nodes(transaction, state, spans)).spans(spans)
    except NotInTreeError:
        raise damaged() from None


def damaged() -> FailedPrecondition:
    """Returns the error for callers if a proof cannot be computed."""
    return FailedPrecondition(
        "tiles of the audit log are missing: verify the log", reason="AUDIT_LOG_DAMAGED"
    )


def accepted(note: str, state: TreeState, identity: LogIdentity) -> Checkpoint:
    """Returns the checkpoint in a note that a caller has kept, if it is of this log.

    Raises:
        InvalidArgument: the note is malformed. FailedPrecondition: it belongs to another log, or no key of this log has
            signed it.
    """
    try:
        kept, _ = notes.parse(note)
    except NoteError as error:
        raise invalid("checkpoint", str(error)) from None
    name = name_of(state)
    if not identity.is_of_log(kept, state):
        raise FailedPrecondition(
            f"the checkpoint belongs to the log {kept.origin}; this log is {name}",
            reason="CHECKPOINT_OF_ANOTHER_LOG",
            metadata={"origin": kept.origin, "expected": name},
        )
    try:
        notes.opened(note, identity.verifiers(state))
    except NoteError as error:
        raise FailedPrecondition(str(error), reason="CHECKPOINT_NOT_SIGNED_BY_THIS_LOG") from None
    return kept


async def differs(transaction: ReadTransaction, state: TreeState, kept: Checkpoint) -> str:
    """Returns how a kept checkpoint differs from the present log; '' if the log continues it."""
    if kept.size > state.size:
        return f"the checkpoint has {kept.size} leaves, but the log has {state.size}: the log was cut, or went back"
    if kept.size == 0:
        return ""
    found = await root(transaction, state, kept.size)
    if found == kept.root:
        return ""
    return (
        f"the first {kept.size} leaves have the root {found.hex()}; in the checkpoint it is {kept.root.hex()}"
    )


def text(index: int, hashes: Sequence[bytes], note: str) -> str:
    """Returns a proof in the form of C2SP tlog-proof."""
    return "".join(
        (
            f"c2sp.org/tlog-proof@v1\nindex {index}\n",
            *(f"{base64.b64encode(each).decode()}\n" for each in hashes),
            "\n",
            note,
        )
    )
