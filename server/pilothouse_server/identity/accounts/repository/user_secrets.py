"""All SQL about secrets of users that the server must be able to read again.

There is one row for each user, kind and name. A row contains only ciphertext, which `operations.user_secrets` encrypts
and decrypts. The id of a row never changes, because the ciphertext is bound to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.identity.model import SecretKind, UserId
from pilothouse_server.identity.tables import USER_SECRETS
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is stored; `updated_at` is when it was last replaced."""

    id: int
    sealed: Sealed
    updated_at: datetime


async def claim(transaction: Transaction, user_id: UserId, kind: SecretKind, name: str, key_id: str) -> int:
    """Locks the row of this kind and name, inserts it if there is none, and returns its id; `seal` fills it."""
    statement = insert(USER_SECRETS).values(
        user_id=user_id, secret_type=kind, name=name, encrypted_value=b"", key_id=key_id
    )
    statement = statement.on_conflict_do_update(
        index_elements=[USER_SECRETS.c.user_id, USER_SECRETS.c.secret_type, USER_SECRETS.c.name],
        set_={"updated_at": func.clock_timestamp()},
    )
    found: int = (await transaction.connection.execute(statement.returning(USER_SECRETS.c.id))).scalar_one()
    return found


async def seal(transaction: Transaction, secret_id: int, sealed: Sealed) -> None:
    """Writes the ciphertext of a row that `claim` has locked."""
    await transaction.connection.execute(
        update(USER_SECRETS)
        .where(USER_SECRETS.c.id == secret_id)
        .values(encrypted_value=sealed.ciphertext, data_key=sealed.data_key, key_id=sealed.key_id)
    )


async def find(
    transaction: ReadTransaction, user_id: UserId, kind: SecretKind, name: str, *, lock: bool = False
) -> StoredSecret | None:
    """Returns the secret of this kind and name; None if there is none.

    `lock` locks the row.
    """
    query = select(
        USER_SECRETS.c.id,
        USER_SECRETS.c.encrypted_value,
        USER_SECRETS.c.data_key,
        USER_SECRETS.c.key_id,
        USER_SECRETS.c.updated_at,
    ).where(
        USER_SECRETS.c.user_id == user_id, USER_SECRETS.c.secret_type == kind, USER_SECRETS.c.name == name
    )
    if lock:
        query = query.with_for_update()
    row = (await transaction.connection.execute(query)).one_or_none()
    if row is None:
        return None
    return StoredSecret(row.id, Sealed(row.encrypted_value, row.data_key, row.key_id), row.updated_at)


async def remove(transaction: Transaction, user_id: UserId, kind: SecretKind, name: str | None = None) -> int:
    """Deletes the secret of this kind and name, or all of the kind if no name is given; returns the number."""
    statement = delete(USER_SECRETS).where(
        USER_SECRETS.c.user_id == user_id, USER_SECRETS.c.secret_type == kind
    )
    if name is not None:
        statement = statement.where(USER_SECRETS.c.name == name)
    return len((await transaction.connection.execute(statement.returning(USER_SECRETS.c.id))).all())


async def remove_of_user(transaction: Transaction, user_id: UserId) -> None:
    """Deletes all secrets of a user."""
    await transaction.connection.execute(delete(USER_SECRETS).where(USER_SECRETS.c.user_id == user_id))
