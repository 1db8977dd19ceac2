"""All SQL about failed log-ins: one row for each hash of an account name.

The row does not depend on whether such a user exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.identity.tables import LOGIN_THROTTLES
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


@dataclass(frozen=True, slots=True)
class Throttle:
    """The number of an account's failed log-ins, when the last one failed, and the end of the account's lock.

    `now` is the database's time.
    """

    failures: int
    locked_until: datetime | None
    updated_at: datetime
    now: datetime


async def locked_for(transaction: ReadTransaction, account_hash: bytes) -> timedelta | None:
    """Returns how long an account stays locked, None if it is not locked; reads without waiting for row locks."""
    remaining = LOGIN_THROTTLES.c.locked_until - func.clock_timestamp()
    query = select(remaining).where(
        LOGIN_THROTTLES.c.account_hash == account_hash,
        LOGIN_THROTTLES.c.locked_until > func.clock_timestamp(),
    )
    found: timedelta | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def lock(transaction: Transaction, account_hash: bytes) -> Throttle:
    """Returns the counter of an account, and locks its row, so that guesses at one account are counted one by one."""
    statement = (
        insert(LOGIN_THROTTLES)
        .values(account_hash=account_hash)
        .on_conflict_do_update(
            index_elements=[LOGIN_THROTTLES.c.account_hash], set_={"updated_at": LOGIN_THROTTLES.c.updated_at}
        )
        .returning(
            LOGIN_THROTTLES.c.failures,
            LOGIN_THROTTLES.c.locked_until,
            LOGIN_THROTTLES.c.updated_at,
            func.clock_timestamp().label("now"),
        )
    )
    row = (await transaction.connection.execute(statement)).one()
    return Throttle(row.failures, row.locked_until, row.updated_at, row.now)


async def count_failure(
    transaction: Transaction, account_hash: bytes, failures: int, locked_until: datetime | None
) -> None:
    """Stores the counter after a failure."""
    await transaction.connection.execute(
        update(LOGIN_THROTTLES)
        .where(LOGIN_THROTTLES.c.account_hash == account_hash)
        .values(failures=failures, locked_until=locked_until, updated_at=func.clock_timestamp())
    )


async def clear(transaction: Transaction, account_hash: bytes) -> None:
    """Resets the failures of an account, and unlocks it."""
    await transaction.connection.execute(
        delete(LOGIN_THROTTLES).where(LOGIN_THROTTLES.c.account_hash == account_hash)
    )
