"""The active key-encryption key, and the data keys that other keys still wrap.

One key is active: values are encrypted under it. Rotation activates another key, then wraps the data keys
of all rows again, one batch in each transaction, and retires the unused keys. A writer that has read the active key
holds a shared advisory lock until its commit, and the change of the active key takes the lock exclusively. So nothing
is written under the old key after that change is committed, and a count of zero old rows stays true.

A rotation that was interrupted continues from its last row: every row stores the id of the key that wraps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

# An arbitrary number that no other code locks.
_LOCK = 0x70_69_6C_6F_74_4B_45_4B


_ACTIVE = text("SELECT key_id FROM encryption_keys WHERE status = 'active'")
_SHARED = text("SELECT pg_advisory_xact_lock_shared(:lock)")
_EXCLUSIVE = text("SELECT pg_advisory_xact_lock(:lock)")
_DEMOTE = text("UPDATE encryption_keys SET status = 'retiring' WHERE status = 'active' AND key_id <> :key_id")
_PROMOTE = text(
    "INSERT INTO encryption_keys (key_id, status, provider) VALUES (:key_id, 'active', :provider) "
    "ON CONFLICT (key_id) DO UPDATE SET status = 'active', retired_at = NULL, provider = EXCLUDED.provider"
)
_NOTE_PROVIDERS = text(
    "UPDATE encryption_keys AS k SET provider = held.provider "
    "FROM unnest(CAST(:key_ids AS text[]), CAST(:providers AS text[])) AS held (key_id, provider) "
    "WHERE k.key_id = held.key_id AND k.provider IS DISTINCT FROM held.provider"
)
_PROVIDERS = text("SELECT key_id, provider FROM encryption_keys WHERE provider IS NOT NULL")
_RETIRE = text(
    "UPDATE encryption_keys SET status = 'retired', retired_at = now() "
    "WHERE status = 'retiring' AND NOT (key_id = ANY (CAST(:used AS text[])))"
)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The data key of one row, which the transaction has locked."""

    id: int
    row: str
    owner: str
    data_key: bytes
    key_id: str


async def active_key_id(transaction: Transaction) -> str:
    """Returns the key to encrypt under, which stays active until the transaction ends."""
    await transaction.connection.execute(_SHARED, {"lock": _LOCK})
    return str((await transaction.connection.execute(_ACTIVE)).scalar_one())


async def find_active(transaction: ReadTransaction) -> str | None:
    """Returns the active key; None if no key was ever activated."""
    found: str | None = (await transaction.connection.execute(_ACTIVE)).scalar_one_or_none()
    return found


async def activate(transaction: Transaction, key_id: str, provider: str) -> None:
    """Activates a key after all transactions that write under the former have ended."""
    await lock(transaction)
    await transaction.connection.execute(_DEMOTE, {"key_id": key_id})
    await transaction.connection.execute(_PROMOTE, {"key_id": key_id, "provider": provider})


async def note_providers(transaction: Transaction, providers: Mapping[str, str]) -> None:
    """Stores the provider of each key, by identifier.

    An error names it when no provider has the key any more.
    """
    await transaction.connection.execute(
        _NOTE_PROVIDERS, {"key_ids": list(providers), "providers": list(providers.values())}
    )


async def find_providers(transaction: ReadTransaction) -> dict[str, str]:
    """Returns the last known provider of each key, by identifier.

    Keys without one are left out.
    """
    return {row.key_id: row.provider for row in await transaction.connection.execute(_PROVIDERS)}


async def lock(transaction: Transaction) -> None:
    """Locks the choice of the active key until the transaction ends.

    Transactions that write under the key wait.
    """
    await transaction.connection.execute(_EXCLUSIVE, {"lock": _LOCK})


async def uses(transaction: ReadTransaction, tables: Iterable[EnvelopeTable]) -> dict[str, int]:
    """Returns the number of data keys that each key wraps.

    Keys that wrap none are left out. `tables` must be all tables with encrypted values.
    """
    union = " UNION ALL ".join(
        f"SELECT key_id FROM {table.table} WHERE key_id IS NOT NULL"  # noqa: S608 - our own constants
        for table in tables
    )
    counted = text(f"SELECT key_id, count(*) AS rows FROM ({union}) AS used GROUP BY key_id")  # noqa: S608
    return {row.key_id: row.rows for row in await transaction.connection.execute(counted)}


async def take_old(
    transaction: Transaction, table: EnvelopeTable, active: str, *, after: int, rows: int
) -> Sequence[WrappedKey]:
    """Locks and returns up to `rows` data keys that another key than `active` wraps.

    Their ids are above `after`. It waits for rows that another transaction has locked. Rows are locked in the order of
    ids, so that two concurrent rotations cannot deadlock.
    """
    owner = f"CAST({table.owner} AS text)" if table.owner else "''"
    query = text(
        f"SELECT id, CAST({table.row} AS text) AS row, {owner} AS owner, data_key, key_id "  # noqa: S608
        f"FROM {table.table} WHERE key_id <> :active AND data_key IS NOT NULL AND id > :after "
        "ORDER BY id LIMIT :rows FOR NO KEY UPDATE"
    )
    found = await transaction.connection.execute(query, {"active": active, "after": after, "rows": rows})
    return [WrappedKey(*row) for row in found]


async def put_rewrapped(
    transaction: Transaction, table: EnvelopeTable, row_id: int, data_key: bytes, key_id: str
) -> None:
    """Writes the data key of a row that `take_old` has locked."""
    await transaction.connection.execute(
        text(f"UPDATE {table.table} SET data_key = :data_key, key_id = :key_id WHERE id = :id"),  # noqa: S608
        {"id": row_id, "data_key": data_key, "key_id": key_id},
    )


async def count_old(transaction: ReadTransaction, tables: Iterable[EnvelopeTable], active: str) -> int:
    """Returns the number of rows in all these tables that another key wraps.

    It counts all keys other than `active`.
    """
    counts = " + ".join(
        f"(SELECT count(*) FROM {table.table} WHERE key_id <> :active)"  # noqa: S608
        for table in tables
    )
    found = await transaction.connection.execute(text(f"SELECT {counts}"), {"active": active})
    return int(found.scalar_one())


async def retire_unused(transaction: Transaction, tables: Iterable[EnvelopeTable]) -> None:
    """Marks keys that were replaced and that no row of these tables uses any more."""
    await transaction.connection.execute(_RETIRE, {"used": sorted(await uses(transaction, tables))})
