"""The active key, and its rotation.

An operator first gives every server a new key (`pilothouse keys add`, or a provider listed before the others), then
calls the rotation. The newest key becomes the active one. It then wraps the data keys of all rows, one batch in each
transaction. Values do not change and stay readable. After an interruption the next call continues.

A PKCS#11 token is called between two transactions, never within one. A batch that needs the token is rolled back, and
retried once the result is cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from pilothouse_server.config import repository
from pilothouse_server.config.operations import configs
from pilothouse_server.config.tables import SEALED_SECRETS
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.token_keys import ENCRYPTION_KEY_MISSING, KeyNotAtHand
from pilothouse_server.errors import FailedPrecondition, PilothouseError, Unavailable
from pilothouse_server.settings.model import SettingsError
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.encryption_keys import WrappedKey
from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.store.unit_of_work import Store, Transaction

log = structlog.get_logger(__name__)

DEFAULT_BATCH = 1000
_TRANSACTION_ROWS = 100
# Attempts for a batch that needs results from a token.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Rotated:
    """The result of a call: rows wrapped again, rows that still use another key, and the active key."""

    rotated: int
    remaining: int
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The number of rows that only one key can read, by key, and the key that encrypts new values.

    `active`: empty if no server has chosen a key yet.
    """

    uses: Mapping[str, int]
    active: str


async def look(store: Store, tables: Sequence[EnvelopeTable]) -> KeyUse:
    """Returns the number of rows that depend on each key, from one snapshot."""
    async with store.system_read(snapshot=True) as transaction:
        return KeyUse(
            await encryption_keys.uses(transaction, tables),
            await encryption_keys.find_active(transaction) or "",
        )


async def begin(store: Store, envelopes: Envelopes, tables: Sequence[EnvelopeTable]) -> None:
    """Reads the providers, and chooses the active key if there is none. Call it before the server serves.

    Raises:
        Unavailable: stored values are encrypted with keys that no provider has, or a provider cannot be read. The
            message names the keys and the providers that had them.
    """
    failure: PilothouseError | None = None
    try:
        await envelopes.refresh()
    except Unavailable as error:
        failure = error
    else:
        if envelopes.token is not None and not envelopes.token.names:
            log.warning("the token has no key with the configured label: run pilothouse keys add")
    async with store.system_write("key rotation") as transaction:
        await encryption_keys.lock(transaction)
        missing = await _missing(transaction, envelopes, tables)
        if missing or failure:
            raise _refuse_start(missing, failure)
        active = await encryption_keys.find_active(transaction)
        if active is None or active not in envelopes.key_ids:
            newest = envelopes.newest_key_id
            await encryption_keys.activate(transaction, newest, envelopes.providers[newest])
            if active is not None:
                log.warning("the active key is replaced: nothing used it, and no key provider has it")
        await encryption_keys.note_providers(transaction, envelopes.providers)


@dataclass(frozen=True, slots=True)
class _Missing:
    """A key that no provider has, the number of values that need it, and its last provider ('' if unknown)."""

    key_id: str
    values: int
    provider: str

    @property
    def words(self) -> str:
        had = f", which the key provider {self.provider} had" if self.provider else ""
        return f"{self.values} stored values need the key {self.key_id}{had}"


async def _missing(
    transaction: Transaction, envelopes: Envelopes, tables: Sequence[EnvelopeTable]
) -> list[_Missing]:
    uses = await encryption_keys.uses(transaction, tables)
    providers = await encryption_keys.find_providers(transaction)
    held = envelopes.key_ids
    return [
        _Missing(key_id, values, providers.get(key_id, ""))
        for key_id, values in sorted(uses.items())
        if key_id not in held
    ]


def _refuse_start(missing: Sequence[_Missing], failure: PilothouseError | None) -> Unavailable:
    """Returns the error for a start without all keys. `failure`: why a provider cannot be read, if one cannot."""
    lines = [failure.message] if failure is not None else []
    lines += [each.words for each in missing]
    if missing:
        lines.append("no key provider of this server has the missing key: see PILOTHOUSE_KEY_PROVIDERS")
    return Unavailable(
        "; ".join(lines),
        reason=ENCRYPTION_KEY_MISSING if missing or failure is None else failure.reason,
        metadata={"key_id": missing[0].key_id} if missing else {},
    )


async def rotate(store: Store, envelopes: Envelopes, tables: Sequence[EnvelopeTable], batch: int) -> Rotated:
    """Makes the newest key the active one and wraps up to `batch` data keys with it.

    Raises:
        Unavailable: no provider of this server has a row's key, or its token does not respond.
        FailedPrecondition: the key file cannot be read.

    Batches that were committed before an error stay. A data key that was tampered with is logged and not rotated.
    """
    await refresh(envelopes)
    active = envelopes.newest_key_id
    async with store.system_write("key rotation") as transaction:
        if await encryption_keys.find_active(transaction) != active:
            await encryption_keys.activate(transaction, active, envelopes.providers[active])
    rotated = 0
    for table in tables:
        position = 0
        while rotated < batch:
            rows = min(_TRANSACTION_ROWS, batch - rotated)
            taken, done = await _rotate_rows(store, table, envelopes, active, after=position, rows=rows)
            rotated += done
            if not taken:
                break
            position = taken[-1].id
    async with store.system_write("key rotation") as transaction:
        remaining = await encryption_keys.count_old(transaction, tables, active)
        await encryption_keys.retire_unused(transaction, tables)
    return Rotated(rotated, remaining, active)


async def refresh(envelopes: Envelopes) -> None:
    """Reads the providers again. Raises FailedPrecondition for an unreadable file, Unavailable for a token."""
    try:
        await envelopes.refresh()
    except SettingsError as error:
        raise FailedPrecondition(str(error), reason="KEY_FILE_UNREADABLE") from None


async def _rotate_rows(
    store: Store, table: EnvelopeTable, envelopes: Envelopes, active: str, *, after: int, rows: int
) -> tuple[Sequence[WrappedKey], int]:
    """Rotates rows in one transaction; returns the rows that were read, and the number of rows wrapped again."""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            async with store.system_write("key rotation") as transaction:
                taken = await encryption_keys.take_old(transaction, table, active, after=after, rows=rows)
                if taken:
                    envelopes.require(((each.data_key, each.key_id) for each in taken), active)
                return taken, await _rewrap(transaction, table, taken, envelopes, active)
        except KeyNotAtHand as missing:
            if not attempts_left:
                raise
            await missing.bring()
    raise AssertionError("the last attempt returns or raises")


async def _rewrap(
    transaction: Transaction,
    table: EnvelopeTable,
    taken: Sequence[WrappedKey],
    envelopes: Envelopes,
    active: str,
) -> int:
    done = []
    for each in taken:
        binding = table.binding(each.row, each.owner)
        try:
            data_key = envelopes.rewrap(each.data_key, each.key_id, binding, active)
        except FailedPrecondition as error:
            # No key can open it, and the other rows must not wait for it. It is counted in `remaining`.
            log.error("a data key cannot be rotated", table=table.table, id=each.id, reason=error.reason)
            continue
        await encryption_keys.put_rewrapped(transaction, table, each.id, data_key, active)
        done.append(each.id)
    if table == SEALED_SECRETS and done:
        for secret in await repository.get_many(transaction, done, "secret"):
            transaction.emit(configs.event("secret", secret, "modified", secret))
    return len(done)
