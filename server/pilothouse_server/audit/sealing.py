"""Grows the tree over the audit log, and seals its heads: at least once a period while there is something new.

Every server does this; the row of the tree's size lets one at a time grow it, in steps that are short. So whoever is
there goes on where another one stopped, and records that were numbered while no sealer ran are leaves like all others.

A head is signed only where the tree still has the head before it: what contradicts a head that was given out is never
signed (`Contradiction`), and is told by log and metric until somebody has looked. A record that is missing while the
tree grows does not stop it: its leaf is of no hash, and verification says so for ever.

Where the database went back, heads of another line of records have been given out. The log goes on under its name with
the new history's after it, so that no head contradicts another of its origin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from prometheus_client import Counter, Gauge

from pilothouse_server.audit import merkle, notes
from pilothouse_server.audit.merkle import Edge
from pilothouse_server.audit.notes import Checkpoint, NoteError, Signer, Verifier
from pilothouse_server.audit.policy import Policy
from pilothouse_server.errors import FailedPrecondition, PilothouseError
from pilothouse_server.keys import KeyRing
from pilothouse_server.settings import PREFIX, Settings, SettingsError
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import Seal, TreeState
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

SEALED_SIZE = Gauge("pilothouse_audit_sealed_size", "Leaves of the newest sealed head of the audit log.")
SEALED_TIME = Gauge(
    "pilothouse_audit_sealed_timestamp_seconds", "When the newest head of the audit log was sealed."
)
FAULTS = Counter(
    "pilothouse_audit_log_faults_total",
    "What was found wrong with the audit log: missing records, other heads.",
    ("kind",),
)

# So many leaves a transaction: some ten milliseconds.
_STEP = 4096
# Heads that are asked for are sealed no faster.
_LEAST_SECONDS = 1.0
_NO_HASH = bytes(merkle.HASH_BYTES)
_USE = "audit-log-signature"


class Identity:
    """The name of the log and the keys that sign its heads, newest first; each head bears a signature of every key.

    `former` have signed heads once, and sign none any more.
    """

    def __init__(
        self,
        seeds: Sequence[bytes],
        signers: Sequence[Signer],
        origin: str,
        policy: Policy,
        former: Sequence[Verifier] = (),
    ) -> None:
        self._seeds = seeds
        self.policy = policy
        self._signers = signers
        self._former = former
        # As it is set; '' where the log may have any name.
        self.wanted = origin

    @classmethod
    def load(cls, settings: Settings, keys: KeyRing) -> Identity:
        """The keys that are named, else those that follow from the master keys.

        Raises:
            SettingsError: a key cannot be read, or name and keys do not fit each other.
        """
        try:
            origin = settings.audit_origin and notes.checked_name(settings.audit_origin)
        except NoteError as error:
            raise SettingsError(f"{PREFIX}AUDIT_ORIGIN: {error}") from None
        signers, former = _named_keys(settings)
        names = {signer.name for signer in signers}
        if len(names) > 1 or (origin and signers and names != {origin}):
            raise SettingsError(
                f"{PREFIX}AUDIT_KEY: the keys are of {', '.join(sorted(names))}; they must all bear the log's name"
                + (f", which is {origin}" if origin else "")
            )
        policy = Policy.parse(settings.audit_witnesses)
        return cls(keys.derive_each(_USE), signers, origin or next(iter(names), ""), policy, former)

    def signers(self, name: str) -> list[Signer]:
        """The keys of the log of this name."""
        return list(self._signers) or [Signer(name, seed) for seed in self._seeds]

    def verifiers(self, state: TreeState) -> list[Verifier]:
        """The keys that may have signed heads of a log.

        Beside those that sign now and former ones these are those that follow from the master keys, under each name
        that the log has had.
        """
        signers = [Signer(name, seed) for name in self.names(state) for seed in self._seeds]
        found = [signer.verifier for signer in (*self.signers(name_of(state)), *signers)]
        return list(dict.fromkeys([*found, *self._former]))

    def names(self, state: TreeState) -> list[str]:
        """The name of a log; and that which it had before it was named, if it is the settings that name it so."""
        name, unnamed = name_of(state), _unnamed(state)
        return [name, unnamed] if self.wanted == name != unnamed else [name]

    def is_of_log(self, checkpoint: Checkpoint, state: TreeState) -> bool:
        """Whether a head bears a name of the log; that of a history has the history's after it."""
        return any(f"{checkpoint.origin}/".startswith(f"{name}/") for name in self.names(state))

    def checkpoint(self, state: TreeState, size: int, root: bytes) -> Checkpoint:
        """The head of a tree, as this log signs it."""
        return Checkpoint(origin_of(state), size, root)


def _named_keys(settings: Settings) -> tuple[list[Signer], list[Verifier]]:
    """The keys that sign, and those that have signed once."""
    if settings.audit_key_file is None:
        text, name = settings.audit_key, "AUDIT_KEY"
    else:
        name = "AUDIT_KEY_FILE"
        try:
            text, mode = settings.audit_key_file.read_text(), settings.audit_key_file.stat().st_mode
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{PREFIX}{name}: {settings.audit_key_file} cannot be read") from None
        if mode & 0o077:
            raise SettingsError(
                f"{PREFIX}{name}: {settings.audit_key_file} can be read by others: chmod 600 it"
            )
    try:
        signers = [Signer.parse(line) for line in text.split() if notes.is_secret(line)]
        former = [Verifier.parse(line) for line in text.split() if not notes.is_secret(line)]
    except NoteError as error:
        raise SettingsError(f"{PREFIX}{name}: {error}") from None
    if any(verifier.witness for verifier in former):
        raise SettingsError(f"{PREFIX}{name}: a key of a witness signs no heads of a log")
    if settings.audit_key_file is not None and not (signers or former):
        raise SettingsError(f"{PREFIX}{name}: {settings.audit_key_file} holds no key")
    return signers, former


def name_of(state: TreeState) -> str:
    """The name of the log and of its keys."""
    return state.origin or _unnamed(state)


def _unnamed(state: TreeState) -> str:
    return f"pilothouse/{state.log_id}"


def origin_of(state: TreeState) -> str:
    """The first line of the log's heads: its name, and where the database went back, its history."""
    name = name_of(state)
    return name if state.head_history == state.history else f"{name}/{state.head_history[:8]}"


class Sealer:
    """The sealer of one server; `run` is its task.

    `newest` answers the newest record's sequence as far as this server knows, and costs nothing.
    """

    def __init__(
        self, store: Store, identity: Identity, newest: Callable[[], int], *, period_seconds: float
    ) -> None:
        self._store = store
        self.identity = identity
        self._newest = newest
        self._period = period_seconds
        self._known = -1
        self._at_work: asyncio.Task[Seal] | None = None
        self._sealed_at = 0.0
        # Origin and size of the head that was seen last: whoever may change the database may also remove its heads.
        self._seen = "", 0
        # Told a head that was sealed by this server: what publishes it, or has it witnessed.
        self.on_sealed: Callable[[Seal], None] = lambda _seal: None

    async def begin(self) -> None:
        """Names the log at the first start.

        Raises:
            SettingsError: it has another name already. Unavailable: the database is away.
        """
        async with self._store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        wanted = self.identity.wanted
        if wanted and not state.origin:
            async with self._store.system_write("seal") as transaction:
                await audit_tree.name(transaction, wanted)
        elif wanted and state.origin != wanted:
            raise SettingsError(
                f"{PREFIX}AUDIT_ORIGIN: the audit log of this database is named {state.origin}, for ever"
            )

    async def run(self) -> None:
        """Seals until cancelled; a database that is away is waited for."""
        while True:
            await asyncio.sleep(self._period)
            if self._newest() == self._known:
                continue
            try:
                await self.seal()
            except PilothouseError as error:
                log.warning("the audit log cannot be sealed", reason=error.reason)

    async def close(self) -> None:
        """Returns once no seal is being made any more."""
        if self._at_work is not None:
            await cancel_and_wait(self._at_work)

    async def seal(self) -> Seal:
        """Grows the tree over all that is in the log, and seals its head; callers at the same time share the work.

        Raises:
            FailedPrecondition: the tree does not have the head that was sealed last.
            Unavailable: the database is away.
        """
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._seal_soon(), name="seal the audit log")
        return await asyncio.shield(self._at_work)

    async def covering(self, size: int) -> Seal:
        """The newest head, which is of at least so many leaves where the log has them. Raises as `seal`."""
        async with self._store.system_read() as transaction:
            seal = await audit_tree.newest_seal(transaction)
        if seal is not None and seal.size >= size:
            return seal
        return await self.seal()

    async def _seal_soon(self) -> Seal:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._sealed_at + _LEAST_SECONDS - loop.time()))
        known = self._newest()
        while True:
            began = loop.time()
            async with self._store.system_write("seal") as transaction:
                seal = await self._step(transaction)
            if seal is not None:
                self._seen = notes.parse(seal.note)[0].origin, seal.size
                break
            # Who catches up leaves others half of the time.
            await asyncio.sleep(loop.time() - began)
        self._sealed_at = loop.time()
        self._known = known
        SEALED_SIZE.set(seal.size)
        SEALED_TIME.set(seal.sealed_at.timestamp())
        self.on_sealed(seal)
        return seal

    async def _step(self, transaction: Transaction) -> Seal | None:
        """Takes some records into the tree; seals it where these were all."""
        state = await audit_tree.take(transaction)
        edge = Edge(state.size, state.edge)
        newest = await audit_tree.newest_seal(transaction)
        origin, size = self._seen
        if origin == origin_of(state) and size > (0 if newest is None else newest.size):
            raise _contradiction(size)
        if newest is not None and not _holds(newest, edge):
            raise _contradiction(newest.size)
        if state.size < state.size_wanted:
            await self._grow(transaction, state, edge)
        if edge.size < state.size_wanted:
            return None
        if newest is not None and newest.size == edge.size:
            return newest
        root = edge.root()
        checkpoint = self.identity.checkpoint(state, edge.size, root)
        note = notes.signed(checkpoint, self.identity.signers(name_of(state)))
        return await audit_tree.put_seal(transaction, edge.size, root, note)

    async def _grow(self, transaction: Transaction, state: TreeState, edge: Edge) -> None:
        data = [] if state.size else [state.chain_hash]
        after = state.chain_length + max(state.size - 1, 0)
        upto = min(state.newest, after + _STEP)
        found = await audit_tree.record_hashes(transaction, after, upto)
        missing = [sequence for sequence in range(after + 1, upto + 1) if sequence not in found]
        if missing:
            FAULTS.labels("missing").inc(len(missing))
            log.error("records are missing from the audit log", first=missing[0], count=len(missing))
        data += [found.get(sequence, _NO_HASH) for sequence in range(after + 1, upto + 1)]
        full = [(tile.level, tile.position, tile.hashes) for tile in edge.grow(data)]
        await audit_tree.grow(transaction, edge.size, edge.levels, full)


def _contradiction(size: int) -> FailedPrecondition:
    """What a log that does not have the head any more that was sealed last is answered by."""
    FAULTS.labels("head").inc()
    log.error("the tree of the audit log does not have the head that was sealed last", size=size)
    return FailedPrecondition(
        f"the audit log contradicts its sealed head of {size} leaves: verify it",
        reason="AUDIT_LOG_CONTRADICTS_ITS_HEAD",
        metadata={"size": str(size)},
    )


def _holds(seal: Seal, edge: Edge) -> bool:
    """Whether a tree of the size of a head has its root; of a greater one the proofs tell."""
    if seal.size > edge.size:
        return False
    with suppress(merkle.NotInTreeError):
        return seal.size < edge.size or edge.root() == seal.root
    return False
