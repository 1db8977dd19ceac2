"""Verifies the whole audit log.

Records are compared with their hashes, the hashes with the tree, and the tree with the sealed heads. The walk reads the
log once, in ranges, each in a short transaction, so that it blocks no writer. How precisely a fault is located depends
on the change:

- only a record: the record;
- records and the tree: the range between two sealed heads, because the later head no longer matches;
- records, tree and heads, by a forger who can sign: only a checkpoint kept outside the database detects it. The same is
  true of a log that was truncated to an earlier head together with all later heads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pilothouse_server.audit import merkle, notes, repository
from pilothouse_server.audit.drops import Dropped
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.merkle import Edge, Frontier
from pilothouse_server.audit.notes import Checkpoint, NoteError, UnknownKeysError, Verifier
from pilothouse_server.flowcontrol.reservation import read_slice
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store import audit_records, audit_tree
from pilothouse_server.store.audit_tree import Seal, TreeState
from pilothouse_server.store.unit_of_work import Store

# (after, upto) → the rows of a range of the log that a caller may see
Visible = Callable[[int, int], Awaitable[Sequence[Any]]]

# Full tiles that are read at a time: 1,024 leaves.
_TILES = 4
_SEALS = 1000
MOST_FINDINGS = 1000


class Fault(Enum):
    """The kinds of fault in a range of the log."""

    ALTERED = "altered"
    MISSING = "missing"
    INSERTED = "inserted"
    TREE = "tree"
    SEAL = "seal"
    CHECKPOINT = "checkpoint"


_WORDS = {
    Fault.ALTERED: "the stored record differs from the recorded one",
    Fault.MISSING: "missing, and no record signed by the log lists it as dropped by retention",
    Fault.INSERTED: "another record, or none, belongs at this place",
}


@dataclass(frozen=True, slots=True)
class VerificationFinding:
    """A fault in a range of records, from `first` to `last`."""

    fault: Fault
    first: int
    last: int
    description: str


@dataclass(slots=True)
class VerificationReport:
    """The progress of a verification, and its findings."""

    total: int
    verified: int = 0
    dropped: int = 0
    # Heads before the first one that a known key has signed.
    former_heads: int = 0
    done: bool = False
    findings: list[VerificationFinding] = field(default_factory=list)
    # Whether more findings exist than are stored.
    more: bool = False

    def add(self, finding: VerificationFinding) -> None:
        """Adds a finding; a fault that continues in the next record extends the finding before."""
        begun = (finding.fault, finding.description, finding.first - 1)
        for back, each in enumerate(reversed(self.findings[-len(Fault) :]), start=1):
            if (each.fault, each.description, each.last) == begun:
                self.findings[-back] = VerificationFinding(
                    each.fault, each.first, finding.last, each.description
                )
                return
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.more = True

    def refused(self, words: str) -> None:
        """Adds the reason why the log cannot be sealed, unless another finding explains it."""
        if not self.findings:
            self.add(VerificationFinding(Fault.SEAL, self.total, self.total, words))

    def of_record(self, fault: Fault, sequence: int) -> None:
        """Adds a finding about one record."""
        self.add(VerificationFinding(fault, sequence, sequence, _WORDS[fault]))


class Verification:
    """One walk over the log. `kept`: a checkpoint that the caller has kept, which this log's key has signed.

    With `visible`, only the records that it returns are verified against the tree; missing records are not
    detected.
    """

    def __init__(
        self,
        store: Store,
        state: TreeState,
        identity: LogIdentity,
        kept: Checkpoint | None = None,
        visible: Visible | None = None,
    ) -> None:
        self._store = store
        self._visible = visible
        self._state = state
        self._kept = kept
        self._identity = identity
        self._verifiers: Sequence[Verifier] = identity.verifiers(state)
        # Whether a head was found that a known key has signed.
        self._known_key = False
        # The size of the last head of a former key, and the keys that signed it.
        self._former: tuple[int, frozenset[bytes]] | None = None
        self.report = VerificationReport(total=state.newest)
        self._dropped = Dropped()
        self._edge = Edge()
        self._frontier = Frontier()
        self._seals: list[Seal] = []
        self._seals_read = 0
        # The size of the last head that matches the tree; None after a mismatch, because no later head matches then.
        self._good: int | None = 0

    async def run(self) -> AsyncIterator[VerificationReport]:
        """Yields the report as it grows; the last one has `done`. Raises Unavailable."""
        await self._read_dropped()
        for place in range(0, self._state.size, _TILES * merkle.WIDTH):
            yield self.report
            await self._stretch(place)
        await self._tail()
        self._check_kept_beyond()
        if self.report.former_heads and not self._known_key:
            self.report.add(
                VerificationFinding(
                    Fault.SEAL, 1, self._state.size, "no key of this log has signed any of its heads"
                )
            )
        # Retention may have dropped records while this walked.
        await self._read_dropped()
        self.report.findings = [each for each in self.report.findings if not self._was_dropped(each)]
        self.report.done = True
        yield self.report

    async def records_between(self, first: int, last: int) -> None:
        """Verifies the records of a range against their leaves in the tree, and nothing else."""
        step = _TILES * merkle.WIDTH
        for low in range(first - 1, last, step):
            high = min(last, low + step)
            async with self._store.system_read() as transaction:
                data = await self._leaf_data(transaction, low, high)
            await self._verify(low, high, dict(enumerate(data, start=low + 1)))

    async def _read_dropped(self) -> None:
        async with self._store.system_read() as transaction:
            self._dropped = Dropped(await repository.drop_records(transaction), self._verifiers)

    def _was_dropped(self, finding: VerificationFinding) -> bool:
        return finding.fault is Fault.MISSING and self._dropped.holds(finding.first, finding.last)

    async def _stretch(self, first: int) -> None:
        """Verifies a range of leaves: their data, the tiles above them, the heads over them, and their records."""
        upto = min(self._state.size, first + _TILES * merkle.WIDTH)
        async with self._store.system_read() as transaction:
            data = await self._leaf_data(transaction, first, upto)
            await self._tiles_above(transaction, data)
            await self._heads(transaction, data)
        expected = {sequence: each for sequence, each in enumerate(data, start=first + 1) if each}
        await self._verify(first, upto, expected)

    async def _leaf_data(self, transaction: Any, first: int, upto: int) -> list[bytes]:
        wanted = {(0, position) for position in range(first // merkle.WIDTH, -(-upto // merkle.WIDTH))}
        edge = Edge(self._state.size, self._state.edge).tiles()
        found = {**await audit_tree.tiles(transaction, wanted), **edge}
        data: list[bytes] = []
        for index in range(first, upto):
            tile = found.get((0, index // merkle.WIDTH), b"")
            at = index % merkle.WIDTH * merkle.HASH_BYTES
            data.append(tile[at : at + merkle.HASH_BYTES])
        if not all(data):
            self._tree_fault(first, upto, "tiles are missing")
        return data

    async def _tiles_above(self, transaction: Any, data: Sequence[bytes]) -> None:
        """Checks the stored tiles above the leaves that these leaves complete."""
        full = {(tile.level, tile.position): tile.hashes for tile in self._edge.grow(data) if tile.level > 0}
        stored = await audit_tree.tiles(transaction, set(full))
        for (level, position), hashes in full.items():
            if stored.get((level, position)) != hashes:
                leaves = merkle.WIDTH ** (level + 1)
                self._tree_fault(
                    position * leaves, (position + 1) * leaves, "a tile does not match its leaves"
                )
        if self._edge.size == self._state.size and self._edge.levels[1:] != list(self._state.edge[1:]):
            self._tree_fault(0, self._state.size, "the edge of the tree does not match its leaves")

    async def _heads(self, transaction: Any, data: Sequence[bytes]) -> None:
        """Checks that the heads sealed within these leaves belong to this tree."""
        share = Share()
        for each in data:
            await share.used()
            self._frontier.add(merkle.leaf_hash(each))
            size = self._frontier.size
            seal = await self._seal_at(transaction, size)
            if seal is not None:
                self._check_seal(seal)
            if (
                self._kept is not None
                and self._kept.size == size
                and self._frontier.root() != self._kept.root
            ):
                # The heads in the database prove nothing about this: an attacker who altered the log may have sealed it
                # again.
                self.report.add(
                    VerificationFinding(Fault.CHECKPOINT, 1, size, "not the log of the checkpoint")
                )

    async def _seal_at(self, transaction: Any, size: int) -> Seal | None:
        if not self._seals and self._seals_read < self._state.size:
            self._seals = list(await audit_tree.seals_after(transaction, self._seals_read, most=_SEALS))[::-1]
            self._seals_read = self._seals[0].size if len(self._seals) == _SEALS else self._state.size
        if self._seals and self._seals[-1].size == size:
            return self._seals.pop()
        return None

    def _check_seal(self, seal: Seal) -> None:
        size = seal.size
        try:
            checkpoint = self._opened(size, seal.note)
        except NoteError as error:
            self._fault_to(size, Fault.SEAL, f"the head of {size} leaves: {error}", only_last=True)
            return
        if (checkpoint.size, checkpoint.root) != (size, seal.root):
            self._fault_to(
                size, Fault.SEAL, f"the note of the head of {size} leaves names another head", only_last=True
            )
        if self._good is None:
            return
        if checkpoint.root == self._frontier.root():
            self._good = size
        else:
            self._fault_to(
                size, Fault.TREE, f"not those of the head that was sealed at {seal.sealed_at:%FT%TZ}"
            )
            self._good = None

    def _opened(self, size: int, note: str) -> Checkpoint:
        """Returns the checkpoint of a note.

        Before the first head of a known key, former keys that nobody has named are accepted too: the content is
        compared with the tree, and a later head of a known key covers it. Raises NoteError.
        """
        try:
            checkpoint, _ = notes.opened(note, self._verifiers)
        except UnknownKeysError:
            checkpoint, _ = notes.parse(note)
            if self._known_key or not self._identity.is_of_log(checkpoint, self._state):
                raise
            self.report.former_heads += 1
            self._hand_over(size, note)
            return checkpoint
        self._known_key = True
        if self._former is not None:
            self._hand_over(size, note)
            self._former = None
        return checkpoint

    def _hand_over(self, size: int, note: str) -> None:
        """Adds a finding if a former head shares no key with the next one: while a key is replaced, both keys sign."""
        names = self._identity.names(self._state)
        keys = frozenset(value[: notes.ID_BYTES] for name, value in notes.parse(note)[1] if name in names)
        if self._former is not None and not keys & self._former[1]:
            last = self._former[0]
            words = f"the head of {last} leaves: its key is unknown and has not signed the next head"
            self._fault_to(last, Fault.SEAL, words, only_last=True)
        self._former = size, keys

    def _fault_to(self, size: int, fault: Fault, words: str, *, only_last: bool = False) -> None:
        """Adds a fault between the last good head and the head of a size."""
        first = size if only_last else (self._good or 0) + 1
        self.report.add(VerificationFinding(fault, min(first, size), size, words))

    def _tree_fault(self, low: int, high: int, words: str) -> None:
        """Adds a finding of the tree, about the leaves from `low` to before `high`."""
        self.report.add(VerificationFinding(Fault.TREE, low + 1, high, words))

    async def _verify(self, after: int, upto: int, expected: Mapping[int, bytes]) -> None:
        """Reads the records of a range and verifies them.

        For a caller's verification, one range for each user is in memory at a time.
        """
        async with read_slice():
            await self._records(after, upto, expected, await self._rows(after, upto))

    async def _rows(self, after: int, upto: int) -> Sequence[Any]:
        if self._visible is not None:
            return await self._visible(after, upto)
        async with self._store.system_read() as transaction:
            return await repository.stored_records(transaction, after, upto)

    async def _records(
        self, after: int, upto: int, expected: Mapping[int, bytes], rows: Sequence[Any]
    ) -> None:
        """Compares the records of a range with their hashes in the tree."""
        position, share = after, Share()
        for row in rows:
            sequence = row.sequence
            if sequence <= position:
                self.report.of_record(Fault.INSERTED, sequence)
                continue
            self._absent(position + 1, sequence - 1)
            position = sequence
            digest = audit_records.record_hash(audit_records.canonical_stored(audit_records.stored_row(row)))
            if digest != row.record_hash or expected.get(sequence, digest) != digest:
                self.report.of_record(Fault.ALTERED, sequence)
            self.report.verified += 1
            await share.used()
        self._absent(position + 1, upto)

    def _absent(self, first: int, last: int) -> None:
        if self._visible is not None:
            # Records of other users may be at these positions.
            return
        for sequence in range(first, last + 1):
            if self._dropped.holds(sequence, sequence):
                self.report.dropped += 1
            else:
                self.report.of_record(Fault.MISSING, sequence)

    async def _tail(self) -> None:
        """Verifies the records that the tree does not cover yet, and finds records beyond the log's end."""
        for first in range(self._state.size, self._state.newest, _TILES * merkle.WIDTH):
            upto = min(self._state.newest, first + _TILES * merkle.WIDTH)
            await self._verify(first, upto, {})
        async with self._store.system_read() as transaction:
            for sequence in await repository.sequences_outside(transaction) if self._visible is None else ():
                self.report.of_record(Fault.INSERTED, sequence)
            newest = await audit_tree.newest_seal(transaction)
            # Read after the seal, so the tree has grown to all that was sealed during this walk.
            size = (await audit_tree.read(transaction)).size
            if newest is not None and newest.size > size:
                self._lost_to(newest.size, f"the log was cut: a head of {newest.size} leaves was sealed")

    def _check_kept_beyond(self) -> None:
        if self._kept is not None and self._kept.size > self._state.size:
            self._lost_to(
                self._kept.size,
                f"the log was cut: the checkpoint has {self._kept.size} leaves, the log has {self._state.size}",
            )

    def _lost_to(self, size: int, words: str) -> None:
        self.report.add(VerificationFinding(Fault.CHECKPOINT, self._state.size + 1, size, words))
