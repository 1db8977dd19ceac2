"""All SQL about second factors: factors, used codes, and the roles that require one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, or_, select, update

from pilothouse_server.identity.model import UserId
from pilothouse_server.identity.tables import RECOVERY_CODES, ROLES, USER_ROLES, USERS
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


async def begin(transaction: Transaction, user_id: UserId, step: int) -> bool:
    """Makes a user's log-ins require codes of steps later than `step`; returns False if they already require codes."""
    statement = (
        update(USERS)
        .where(USERS.c.id == user_id, USERS.c.totp_since.is_(None), USERS.c.deleted_at.is_(None))
        .values(
            totp_since=func.clock_timestamp(),
            # The last step never decreases, so a code that was used before the factor was removed stays used.
            totp_last_step=func.greatest(USERS.c.totp_last_step, step),
            totp_failures=0,
            resource_version=USERS.c.resource_version + 1,
            updated_at=func.now(),
        )
    )
    return (await transaction.connection.execute(statement.returning(USERS.c.id))).one_or_none() is not None


async def end(transaction: Transaction, user_id: UserId) -> bool:
    """Makes a user's log-ins require no codes, and deletes the recovery codes; returns False if there was no factor."""
    statement = (
        update(USERS)
        .where(USERS.c.id == user_id, USERS.c.totp_since.is_not(None))
        .values(totp_since=None, resource_version=USERS.c.resource_version + 1, updated_at=func.now())
    )
    found = (await transaction.connection.execute(statement.returning(USERS.c.id))).one_or_none()
    await transaction.connection.execute(delete(RECOVERY_CODES).where(RECOVERY_CODES.c.user_id == user_id))
    return found is not None


@dataclass(frozen=True, slots=True)
class Used:
    """The use of a factor: the newest step whose code was accepted, and the number of wrong codes since then."""

    last_step: int
    failures: int


async def used(transaction: Transaction, user_id: UserId) -> Used | None:
    """Returns the use of a user's factor, and locks the row; None if the user has no factor."""
    query = (
        select(USERS.c.totp_last_step, USERS.c.totp_failures)
        .where(USERS.c.id == user_id, USERS.c.totp_since.is_not(None), USERS.c.deleted_at.is_(None))
        .with_for_update(key_share=True)
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else Used(row.totp_last_step, row.totp_failures)


async def count_failure(transaction: Transaction, user_id: UserId) -> None:
    """Counts a wrong code."""
    await transaction.connection.execute(
        update(USERS).where(USERS.c.id == user_id).values(totp_failures=USERS.c.totp_failures + 1)
    )


async def use_step(transaction: Transaction, user_id: UserId, step: int) -> bool:
    """Marks the code of a step, and of all earlier steps, as used; returns False if it was already used."""
    statement = (
        update(USERS)
        .where(USERS.c.id == user_id, USERS.c.totp_since.is_not(None), USERS.c.totp_last_step < step)
        .values(totp_last_step=step, totp_failures=0)
    )
    return (await transaction.connection.execute(statement.returning(USERS.c.id))).one_or_none() is not None


async def put_recovery_codes(transaction: Transaction, user_id: UserId, hashes: Sequence[bytes]) -> None:
    """Replaces a user's recovery codes."""
    await transaction.connection.execute(delete(RECOVERY_CODES).where(RECOVERY_CODES.c.user_id == user_id))
    await transaction.connection.execute(
        insert(RECOVERY_CODES).values([{"user_id": user_id, "code_hash": each} for each in hashes])
    )


async def use_recovery_code(transaction: Transaction, user_id: UserId, code_hash: bytes) -> bool:
    """Marks a recovery code as used; returns False if it is wrong or used.

    Only one of two concurrent uses succeeds.
    """
    statement = (
        update(RECOVERY_CODES)
        .where(
            RECOVERY_CODES.c.user_id == user_id,
            RECOVERY_CODES.c.code_hash == code_hash,
            RECOVERY_CODES.c.used_at.is_(None),
        )
        .values(used_at=func.clock_timestamp())
        .returning(RECOVERY_CODES.c.id)
    )
    if (await transaction.connection.execute(statement)).one_or_none() is None:
        return False
    await transaction.connection.execute(update(USERS).where(USERS.c.id == user_id).values(totp_failures=0))
    return True


async def recovery_codes_left(transaction: ReadTransaction, user_id: UserId) -> int:
    """Returns the number of a user's unused recovery codes."""
    query = select(func.count()).where(
        RECOVERY_CODES.c.user_id == user_id, RECOVERY_CODES.c.used_at.is_(None)
    )
    found: int = (await transaction.connection.execute(query)).scalar_one()
    return found


async def holds_one_of(transaction: ReadTransaction, user_id: UserId, roles: Collection[str]) -> bool:
    """Returns whether a user has a valid grant of one of these roles, in any namespace or over all."""
    query = (
        select(USER_ROLES.c.id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(
            USER_ROLES.c.user_id == user_id,
            ROLES.c.name.in_(sorted(roles)),
            or_(USER_ROLES.c.expires_at.is_(None), USER_ROLES.c.expires_at > func.now()),
        )
        .limit(1)
    )
    return (await transaction.connection.execute(query)).first() is not None
