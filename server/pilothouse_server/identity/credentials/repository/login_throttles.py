"""All SQL about failed log-ins: one row an account, found by a hash of its name, whether there is such a
user or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.identity.tables import LOGIN_THROTTLES
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


@dataclass(frozen=True, slots=True)
class Throttle:
    """How often log-ins to an account have failed, when last, and until when it is locked. `now` is the database's."""

    failures: int
    locked_until: datetime | None
    updated_at: datetime
    now: datetime


async def locked_for(transaction: ReadTransaction, account_hash: bytes) -> timedelta | None:
    """For how long an account is still locked, by a look that waits for nobody; None where it is not."""
    remaining = LOGIN_THROTTLES.c.locked_until - func.clock_timestamp()
    query = select(remaining).where(
        LOGIN_THROTTLES.c.account_hash == account_hash,
        LOGIN_THROTTLES.c.locked_until > func.clock_timestamp(),
    )
    found: timedelta | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def lock(transaction: Transaction, account_hash: bytes) -> Throttle:
    """The counter of an account, held until the transaction ends, so that guesses at one account come one by one."""
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
    """Forgets the failures of an account."""
    await transaction.connection.execute(
        delete(LOGIN_THROTTLES).where(LOGIN_THROTTLES.c.account_hash == account_hash)
    )
