"""All SQL about challenges: the response to a correct password if further steps must follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, insert, select

from pilothouse_server.identity.model import UserId
from pilothouse_server.identity.tables import LOGIN_CHALLENGES
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

# The maximum number of challenges of one user; concurrent log-ins of a user have one challenge each.
_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """A valid challenge; `password_changed_at` identifies the password that it was issued for."""

    user_id: UserId
    password_changed_at: datetime


async def insert_challenge(
    transaction: Transaction, challenge_hash: bytes, challenge: Challenge, origin_hash: bytes, life: timedelta
) -> datetime:
    """Adds a challenge, and deletes the user's oldest ones beyond the maximum; returns when the challenge expires."""
    newest = (
        select(LOGIN_CHALLENGES.c.challenge_hash)
        .where(LOGIN_CHALLENGES.c.user_id == challenge.user_id)
        .order_by(LOGIN_CHALLENGES.c.created_at.desc())
        .limit(_MOST - 1)
    )
    await transaction.connection.execute(
        delete(LOGIN_CHALLENGES).where(
            LOGIN_CHALLENGES.c.user_id == challenge.user_id, LOGIN_CHALLENGES.c.challenge_hash.not_in(newest)
        )
    )
    moment = func.clock_timestamp()
    statement = insert(LOGIN_CHALLENGES).values(
        challenge_hash=challenge_hash,
        user_id=challenge.user_id,
        origin_hash=origin_hash,
        password_changed_at=challenge.password_changed_at,
        created_at=moment,
        expires_at=moment + life,
    )
    statement = statement.returning(LOGIN_CHALLENGES.c.expires_at)
    expires_at: datetime = (await transaction.connection.execute(statement)).scalar_one()
    return expires_at


async def owner(transaction: ReadTransaction, challenge_hash: bytes) -> UserId | None:
    """Returns the owner of a challenge, expired or not; None if there is no such challenge."""
    query = select(LOGIN_CHALLENGES.c.user_id).where(LOGIN_CHALLENGES.c.challenge_hash == challenge_hash)
    found: UserId | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def find(
    transaction: ReadTransaction, challenge_hash: bytes, origin_hash: bytes, *, lock: bool = False
) -> Challenge | None:
    """Returns the valid challenge that was issued to this origin; None if there is none. `lock` locks its row."""
    query = select(LOGIN_CHALLENGES.c.user_id, LOGIN_CHALLENGES.c.password_changed_at).where(
        LOGIN_CHALLENGES.c.challenge_hash == challenge_hash,
        LOGIN_CHALLENGES.c.origin_hash == origin_hash,
        LOGIN_CHALLENGES.c.expires_at > func.clock_timestamp(),
    )
    if lock:
        query = query.with_for_update()
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else Challenge(UserId(row.user_id), row.password_changed_at)


async def remove(transaction: Transaction, challenge_hash: bytes) -> None:
    """Deletes a challenge that was used."""
    await transaction.connection.execute(
        delete(LOGIN_CHALLENGES).where(LOGIN_CHALLENGES.c.challenge_hash == challenge_hash)
    )


async def remove_of_user(transaction: Transaction, user_id: UserId) -> None:
    """Deletes all challenges of a user."""
    await transaction.connection.execute(
        delete(LOGIN_CHALLENGES).where(LOGIN_CHALLENGES.c.user_id == user_id)
    )
