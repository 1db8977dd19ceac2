"""Grows the tree over the audit log, and seals its heads: at least once a period if there are new records.

Every server does this. The row of the tree's size is the lock under which one server at a time grows the tree, in short
steps. So any server continues where another one stopped, and records that were numbered while no sealer ran become
leaves like all others.

A head is signed only if the tree provably continues the last head (`audit.kept_heads`): the row of the last head must
have the same root and note, and a consistency proof from it must lead to the new root. A server that has no kept head
of the present history trusts the newest one in the database with a valid signature. A contradiction stops sealing
permanently, on all servers, until a person begins another history; an error line, a metric and an alarm record report
it. A record that is missing while the tree grows does not stop it: its leaf has no hash, and verification reports that
permanently.

When the database is rewound, heads of other records have already been published. The log continues under its name with
the new history's appended, so that no head contradicts another of its origin. The first head of a history names the
head that it follows. A rewound database looks like a contradiction, so the feed checks for a rewind first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from prometheus_client import Gauge

from pilothouse_server.audit import merkle, notes, proofs
from pilothouse_server.audit.alarms import FAULTS, alarm
from pilothouse_server.audit.kept_heads import KeptHead, KeptHeads
from pilothouse_server.audit.log_identity import LogIdentity, origin_of
from pilothouse_server.audit.merkle import Edge
from pilothouse_server.audit.notes import Checkpoint, NoteError, UnknownKeysError
from pilothouse_server.errors import FailedPrecondition, NotFound, PilothouseError
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import PREFIX, SettingsError
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import Seal, TreeState
from pilothouse_server.store.unit_of_work import Store, Transaction

log = structlog.get_logger(__name__)

SEALED_SIZE = Gauge("pilothouse_audit_sealed_size", "Leaves of the newest sealed head of the audit log.")
SEALED_TIME = Gauge(
    "pilothouse_audit_sealed_timestamp_seconds", "When the newest head of the audit log was sealed."
)
STOPPED = Gauge(
    "pilothouse_audit_sealing_stopped",
    (
        "1 while no head of the audit log is signed until a person has investigated: the log contradicts "
        "an earlier head."
    ),
)

# Leaves per transaction: some ten milliseconds.
_STEP = 4096
# Leaves that are processed before other tasks run: the leaves of a step take ten milliseconds.
_PART = 256
# The shortest time between two heads, also if callers request them.
_LEAST_SECONDS = 1.0
_NO_HASH = bytes(merkle.HASH_BYTES)
# The most heads that are read in search of one with a known signature.
_MOST_LOOKED_AT = 1000
# The reason of the error that callers get while no head is signed.
STOPPED_REASON = "AUDIT_LOG_CONTRADICTS_ITS_HEAD"


class _Contradiction(Exception):
    """The tree does not continue a head that was signed."""

    def __init__(self, words: str, size: int) -> None:
        super().__init__(words)
        self.size = size


async def _nothing() -> None:
    """Does nothing: the rewind check of a sealer without a feed."""


class Sealer:
    """The sealer of one server; `run` is its task.

    `newest` returns the sequence of the newest record that this server knows, without a query. `look_again` returns
    once the feed has checked for a rewind.
    """

    def __init__(
        self,
        store: Store,
        identity: LogIdentity,
        newest: Callable[[], int],
        *,
        period_seconds: float,
        kept: KeptHeads | None = None,
        look_again: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._store = store
        self.identity = identity
        self._newest = newest
        self._period = period_seconds
        self._kept = kept or KeptHeads()
        self._look_again = look_again
        self._known = -1
        self._at_work: asyncio.Task[Seal] | None = None
        self._sealed_at = 0.0
        # Called with a head that this server sealed, to publish it or have it witnessed.
        self.on_sealed: Callable[[Seal], None] = lambda _seal: None

    async def begin(self) -> None:
        """Names the log at the first start.

        Raises:
            SettingsError: it has another name already. Unavailable: the database is unavailable.
        """
        async with self._store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        wanted = self.identity.wanted
        if wanted and not state.origin:
            async with self._store.system_write("seal") as transaction:
                await audit_tree.name(transaction, wanted)
        elif wanted and state.origin != wanted:
            raise SettingsError(
                f"{PREFIX}AUDIT_ORIGIN: the audit log of this database is named {state.origin}, which cannot change"
            )

    async def run(self) -> None:
        """Seals until cancelled; waits while the database is unavailable."""
        while True:
            await asyncio.sleep(self._period)
            if self._newest() in (0, self._known):
                continue
            try:
                await self.seal()
            except PilothouseError as error:
                # A stop was logged once, by the server that detected it.
                if error.reason != STOPPED_REASON:
                    log.warning("the audit log cannot be sealed", reason=error.reason)

    async def close(self) -> None:
        """Cancels a seal in progress, and returns once it has ended."""
        if self._at_work is not None:
            await cancel_and_wait(self._at_work)

    async def seal(self) -> Seal:
        """Grows the tree over all records of the log, and seals its head; concurrent callers share the work.

        Raises:
            FailedPrecondition: the log contradicts a head that was signed, now or before (STOPPED_REASON).
            NotFound: the log has no record yet. Unavailable: the database is unavailable.
        """
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._seal_soon(), name="seal the audit log")
        return await asyncio.shield(self._at_work)

    async def covering(self, size: int) -> Seal:
        """Returns the newest head; it has at least `size` leaves if the log has them. Raises as `seal`."""
        async with self._store.system_read() as transaction:
            seal = await audit_tree.newest_seal(transaction)
        if seal is not None and seal.size >= size:
            return seal
        return await self.seal()

    async def tampered(self, history: str, found: str) -> None:
        """Stops sealing in a history that the feed began because somebody rewrote records."""
        FAULTS.labels("record").inc()
        STOPPED.set(1)
        await self._kept.stop(history, found)

    async def _seal_soon(self) -> Seal:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._sealed_at + _LEAST_SECONDS - loop.time()))
        known = self._newest()
        try:
            seal, history = await self._steps()
        except _Contradiction:
            # After a rewind, the feed's check gives the database a new history, and so heads of another origin.
            await self._look_again()
            seal, history = await self._steps_or_stop()
        self._sealed_at = loop.time()
        self._known = known
        await self._kept.keep(history, seal.note)
        STOPPED.set(0)
        SEALED_SIZE.set(seal.size)
        SEALED_TIME.set(seal.sealed_at.timestamp())
        self.on_sealed(seal)
        return seal

    async def _steps_or_stop(self) -> tuple[Seal, str]:
        try:
            return await self._steps()
        except _Contradiction as contradiction:
            raise await self._stop(contradiction) from None

    async def _steps(self) -> tuple[Seal, str]:
        """Grows the tree step by step; returns the newest head, and its history."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            async with self._store.system_write("seal") as transaction:
                state = await audit_tree.take(transaction)
                if reason := self._stopped(state):
                    raise _stopped_error(reason)
                if state.newest == 0:
                    raise NotFound("the audit log has no record yet", reason="AUDIT_HEAD_NOT_FOUND")
                seal = await self._step(transaction, state)
            if seal is not None:
                return seal, state.head_history
            # A server that catches up pauses for as long as its step took.
            await asyncio.sleep(loop.time() - began)

    def _stopped(self, state: TreeState) -> str:
        """Returns why no head may be signed, according to the database or this server's kept heads; '' if
        heads may be signed.
        """
        reason = (state.stopped_reason or "no reason was recorded") if state.stopped else ""
        reason = reason or self._kept.stop_of(state.head_history)
        if reason:
            STOPPED.set(1)
        return reason

    async def _stop(self, contradiction: _Contradiction) -> FailedPrecondition:
        """Stops sealing on all servers; returns the error that callers get."""
        words = str(contradiction)
        FAULTS.labels("head").inc()
        STOPPED.set(1)
        async with self._store.system_write("seal") as transaction:
            history = (await audit_tree.take(transaction)).head_history
            if await audit_tree.stop(transaction, history, words):
                transaction.records.append(
                    alarm(
                        f"sealing stopped: {words}",
                        {"reason": STOPPED_REASON, "size": contradiction.size, "history": history},
                    )
                )
        log.error(
            "the audit log contradicts a head that was signed: no head is signed until a person begins a new history",
            found=words,
            size=contradiction.size,
        )
        await self._kept.stop(history, words)
        return _stopped_error(words)

    async def _step(self, transaction: Transaction, state: TreeState) -> Seal | None:
        """Adds some records to the tree; returns its sealed head once it has all records, else None."""
        kept = self._kept.of(state.head_history)
        if kept is not None and kept.checkpoint.size > state.size:
            raise _cut(kept.checkpoint.size, state.size)
        edge = Edge(state.size, state.edge)
        if state.size < state.newest:
            await self._grow(transaction, state, edge)
        if edge.size < state.newest:
            return None
        return await self._head(transaction, replace(state, size=edge.size, edge=edge.levels), kept)

    async def _head(self, transaction: Transaction, state: TreeState, kept: KeptHead | None) -> Seal:
        """Returns the head of a tree that has grown, if it continues earlier heads. Raises _Contradiction."""
        origin, root = origin_of(state), Edge(state.size, state.edge).root()
        newest = await self._newest_valid(transaction, state, origin)
        if kept is not None:
            await self._check_kept(transaction, state, kept)
            await self._check_continues(transaction, state, kept.checkpoint, root)
        if newest is not None:
            checkpoint = notes.parse(newest.note)[0]
            if (newest.size, newest.root) != (checkpoint.size, checkpoint.root):
                raise _Contradiction(
                    f"the note of the head of {newest.size} leaves names another head", newest.size
                )
            if kept is None or checkpoint.size != kept.checkpoint.size:
                await self._check_continues(transaction, state, checkpoint, root)
            if newest.size == state.size:
                return newest
        follows = "" if kept or newest else await self._followed(transaction, state)
        checkpoint = Checkpoint(origin, state.size, root, follows)
        note = notes.signed(checkpoint, self.identity.signers(origin))
        seal = await audit_tree.put_seal(transaction, state.size, root, note)
        if (seal.root, notes.parse(seal.note)[0].text) != (root, checkpoint.text):
            raise _Contradiction(f"there is another head of {seal.size} leaves", seal.size)
        return seal

    async def _newest_valid(self, transaction: Transaction, state: TreeState, origin: str) -> Seal | None:
        """Returns the newest head of an origin that a known key has signed, else the newest with unknown keys only."""
        verifiers, unknown = self.identity.verifiers(state), None
        for seal in await audit_tree.newest_seals_of(transaction, origin, most=_MOST_LOOKED_AT):
            if seal.size > state.size:
                raise _cut(seal.size, state.size)
            try:
                notes.opened(seal.note, verifiers)
            except UnknownKeysError:
                unknown = unknown or seal
            except NoteError:
                continue
            else:
                return seal
        return unknown

    async def _check_kept(self, transaction: Transaction, state: TreeState, kept: KeptHead) -> None:
        """Checks that the database has the head that this server keeps. Raises _Contradiction."""
        size = kept.checkpoint.size
        if kept.checkpoint.origin not in {origin_of(state), *self.identity.names(state)}:
            words = f"the log is named {origin_of(state)}, but its last head names {kept.checkpoint.origin}"
            raise _Contradiction(words, size)
        row = await audit_tree.seal_at(transaction, size)
        if row is None:
            raise _Contradiction(f"its sealed head of {size} leaves is gone", size)
        # Witnesses append their signatures to the note that was kept.
        if row.root != kept.checkpoint.root or not row.note.startswith(kept.note):
            raise _Contradiction(f"its sealed head of {size} leaves was altered", size)

    async def _check_continues(
        self, transaction: Transaction, state: TreeState, head: Checkpoint, root: bytes
    ) -> None:
        """Checks that the tree begins with the tree of a head. Raises _Contradiction."""
        try:
            spans = merkle.consistency_spans(head.size, state.size)
            proof = (await proofs.nodes(transaction, state, spans)).spans(spans)
        except merkle.NotInTreeError:
            raise _Contradiction(
                f"tiles that prove its sealed head of {head.size} leaves are missing", head.size
            ) from None
        if not merkle.is_consistent((head.size, head.root), (state.size, root), proof):
            raise _Contradiction(f"its first {head.size} leaves are not those of its sealed head", head.size)

    async def _followed(self, transaction: Transaction, state: TreeState) -> str:
        """Returns the head before the first one of a history: the last that this server keeps, or the newest valid."""
        kept = self._kept.newest()
        if kept is not None and self.identity.is_of_log(kept.checkpoint, state):
            return kept.checkpoint.reference
        for origin in reversed(self.identity.origins(state)):
            found = await self._newest_valid(transaction, state, origin)
            if found is not None:
                return notes.parse(found.note)[0].reference
        return ""

    async def _grow(self, transaction: Transaction, state: TreeState, edge: Edge) -> None:
        sequences = range(state.size + 1, min(state.newest, state.size + _STEP) + 1)
        found = await audit_tree.record_hashes(transaction, sequences.start - 1, sequences.stop - 1)
        missing = [sequence for sequence in sequences if sequence not in found]
        if missing:
            FAULTS.labels("missing").inc(len(missing))
            log.error("records are missing from the audit log", first=missing[0], count=len(missing))
        data = [found.get(sequence, _NO_HASH) for sequence in sequences]
        parts = (data[first : first + _PART] for first in range(0, len(data), _PART))
        full = [
            (tile.level, tile.position, tile.hashes)
            async for part in cooperatively(parts)
            for tile in edge.grow(part)
        ]
        await audit_tree.grow(transaction, edge.size, edge.levels, full)


def _cut(size: int, found: int) -> _Contradiction:
    return _Contradiction(f"it has {found} leaves, but its sealed head has {size}: it was cut", size)


def _stopped_error(reason: str) -> FailedPrecondition:
    """Returns the error for callers that request a head of a log that contradicts an earlier head."""
    return FailedPrecondition(
        (
            f"no head is signed, because the audit log contradicts an earlier head or record: {reason}; "
            "verify it, and begin a new history by `pilothouse migrate new-history`"
        ),
        reason=STOPPED_REASON,
        metadata={"found": reason},
    )
