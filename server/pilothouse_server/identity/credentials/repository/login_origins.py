"""All SQL about the devices and addresses that accounts have logged in from, with one row for each.

The keys of the rows are hashes of the account's name and of the device or address, so the same statements run whether
or not the account exists.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.identity.tables import LOGIN_ORIGINS
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

# The maximum number of devices and addresses of one account. Those with several log-ins are kept longest, because a
# program that logs in each minute and stores no device token adds a device each time.
_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class KnownOrigin:
    """A device or an address that logged in to the account, and the number of failed guesses from it since then.

    `password_changed_at` identifies the password of that log-in.
    """

    origin_hash: bytes
    failures: int
    password_changed_at: datetime


async def find(
    transaction: ReadTransaction,
    account_hash: bytes,
    origin_hashes: Collection[bytes],
    remembered: timedelta,
    *,
    lock: bool = False,
) -> Sequence[KnownOrigin]:
    """Returns those of the origins that logged in to the account within `remembered`; `lock` locks their rows."""
    query = (
        select(LOGIN_ORIGINS.c.origin_hash, LOGIN_ORIGINS.c.failures, LOGIN_ORIGINS.c.password_changed_at)
        .where(
            LOGIN_ORIGINS.c.account_hash == account_hash,
            LOGIN_ORIGINS.c.origin_hash.in_(origin_hashes),
            LOGIN_ORIGINS.c.updated_at > func.clock_timestamp() - remembered,
        )
        .order_by(LOGIN_ORIGINS.c.origin_hash)
    )
    if lock:
        query = query.with_for_update()
    rows = (await transaction.connection.execute(query)).all()
    return [KnownOrigin(row.origin_hash, row.failures, row.password_changed_at) for row in rows]


async def count_failure(
    transaction: Transaction, account_hash: bytes, origin_hashes: Collection[bytes]
) -> None:
    """Counts a failed log-in against each of the origins that has a row."""
    await transaction.connection.execute(
        update(LOGIN_ORIGINS)
        .where(LOGIN_ORIGINS.c.account_hash == account_hash, LOGIN_ORIGINS.c.origin_hash.in_(origin_hashes))
        .values(failures=LOGIN_ORIGINS.c.failures + 1)
    )


async def remember(
    transaction: Transaction, account_hash: bytes, origin_hash: bytes, password_changed_at: datetime
) -> None:
    """Records a log-in from a device or an address, and resets its count of failures."""
    moment = func.clock_timestamp()
    statement = insert(LOGIN_ORIGINS).values(
        account_hash=account_hash,
        origin_hash=origin_hash,
        password_changed_at=password_changed_at,
        updated_at=moment,
    )
    await transaction.connection.execute(
        statement.on_conflict_do_update(
            index_elements=[LOGIN_ORIGINS.c.account_hash, LOGIN_ORIGINS.c.origin_hash],
            set_={
                "failures": 0,
                "logins": LOGIN_ORIGINS.c.logins + 1,
                "password_changed_at": password_changed_at,
                "updated_at": moment,
            },
        )
    )


async def forget_most(transaction: Transaction, account_hash: bytes) -> None:
    """Deletes an account's devices and addresses beyond the maximum number."""
    kept = (
        select(LOGIN_ORIGINS.c.origin_hash)
        .where(LOGIN_ORIGINS.c.account_hash == account_hash)
        .order_by((LOGIN_ORIGINS.c.logins > 1).desc(), LOGIN_ORIGINS.c.updated_at.desc())
        .limit(_MOST)
    )
    await transaction.connection.execute(
        delete(LOGIN_ORIGINS).where(
            LOGIN_ORIGINS.c.account_hash == account_hash, LOGIN_ORIGINS.c.origin_hash.not_in(kept)
        )
    )
