"""Which key encrypts, and its rotation.

An operator first puts a new key into the key file of every server (`pilothouse keys add`), then rotates: the
newest key of the file becomes the active one, and the data keys of all rows are wrapped by it, a batch a
transaction. Values stay as they are and can be read at any moment. Killed anywhere, the next call goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from pilothouse_server.config import repository
from pilothouse_server.config.operations import configs
from pilothouse_server.encryption import Envelopes, key_missing
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.settings import SettingsError
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.encryption_keys import ENVELOPE_TABLES, SECRETS, EnvelopeTable, WrappedKey
from pilothouse_server.store.unit_of_work import Store, Transaction

log = structlog.get_logger(__name__)

DEFAULT_BATCH = 1000
_TRANSACTION_ROWS = 100


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a call did: rows wrapped anew, rows that still use another key, the active key."""

    rotated: int
    remaining: int
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What depends on the keys: rows that can be read with each one only, and the key new values are encrypted under.

    `active` is empty where no server has chosen one yet.
    """

    uses: Mapping[str, int]
    active: str


async def look(store: Store) -> KeyUse:
    """What depends on which key, at one moment."""
    async with store.system_read(snapshot=True) as transaction:
        return KeyUse(
            await encryption_keys.uses(transaction), await encryption_keys.find_active(transaction) or ""
        )


async def ensure_active(store: Store, envelopes: Envelopes) -> None:
    """Chooses the key to encrypt under where none was chosen yet; what a server does before it serves.

    Raises:
        Unavailable: stored values are encrypted under keys that the key file does not hold.
    """
    async with store.system_write("key rotation") as transaction:
        await encryption_keys.lock(transaction)
        missing = await encryption_keys.in_use(transaction) - envelopes.key_ids
        if missing:
            raise key_missing(min(missing))
        active = await encryption_keys.find_active(transaction)
        if active is None or active not in envelopes.key_ids:
            await encryption_keys.activate(transaction, envelopes.newest_key_id)
            if active is not None:
                log.warning("the active key is replaced: nothing used it, and the key file does not hold it")


async def rotate(store: Store, envelopes: Envelopes, batch: int) -> Rotated:
    """Makes the newest key of the key file the active one and wraps up to `batch` data keys by it.

    Raises:
        Unavailable: a row's key is not in this server's key file.
        FailedPrecondition: the key file cannot be read.

    What was committed before an error stays. A data key that was tampered with is logged and remains.
    """
    refresh(envelopes)
    active = envelopes.newest_key_id
    async with store.system_write("key rotation") as transaction:
        if await encryption_keys.find_active(transaction) != active:
            await encryption_keys.activate(transaction, active)
    rotated = 0
    for table in ENVELOPE_TABLES:
        position = 0
        while rotated < batch:
            rows = min(_TRANSACTION_ROWS, batch - rotated)
            async with store.system_write("key rotation") as transaction:
                taken = await encryption_keys.take_old(transaction, table, active, after=position, rows=rows)
                rotated += await _rewrap(transaction, table, taken, envelopes, active)
            if not taken:
                break
            position = taken[-1].id
    async with store.system_write("key rotation") as transaction:
        remaining = await encryption_keys.count_old(transaction, active)
        await encryption_keys.retire_unused(transaction)
    return Rotated(rotated, remaining, active)


def refresh(envelopes: Envelopes) -> None:
    """Reads the key file again. Raises FailedPrecondition if it cannot be read."""
    try:
        envelopes.refresh()
    except SettingsError as error:
        raise FailedPrecondition(str(error), reason="KEY_FILE_UNREADABLE") from None


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
            # It cannot be read under any key; the others must not wait for it. It counts as remaining.
            log.error("a data key cannot be rotated", table=table.table, id=each.id, reason=error.reason)
            continue
        await encryption_keys.put_rewrapped(transaction, table, each.id, data_key, active)
        done.append(each.id)
    if table is SECRETS and done:
        for secret in await repository.get_many(transaction, done, "secret"):
            transaction.emit(configs.event("secret", secret, "modified", secret))
    return len(done)
