"""All SQL about log-ins on devices: one row for each log-in that waits for a person.

Times are the database's, which all servers share. One UPDATE reserves the next request to the issuer, so only one of
two concurrent polls sends a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import delete, func, insert, select, update

from pilothouse_server.identity.tables import DEVICE_LOGINS
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A pending log-in on a device. `interval_seconds`: the time between two polls."""

    issuer: str
    sealed_code: bytes = field(repr=False)
    interval_seconds: int


async def count_of(transaction: ReadTransaction, address_hash: bytes) -> int:
    """Returns the number of pending log-ins that began at an address."""
    query = select(func.count()).where(
        DEVICE_LOGINS.c.address_hash == address_hash, DEVICE_LOGINS.c.expires_at > func.clock_timestamp()
    )
    found: int = (await transaction.connection.execute(query)).scalar_one()
    return found


async def insert_login(
    transaction: Transaction, token_hash: bytes, waiting: DeviceLogin, address_hash: bytes, life: timedelta
) -> None:
    """Adds a pending log-in that expires after `life`."""
    statement = insert(DEVICE_LOGINS).values(
        token_hash=token_hash,
        issuer=waiting.issuer,
        sealed_code=waiting.sealed_code,
        address_hash=address_hash,
        interval_seconds=waiting.interval_seconds,
        next_poll_at=func.clock_timestamp() + timedelta(seconds=waiting.interval_seconds),
        expires_at=func.clock_timestamp() + life,
    )
    await transaction.connection.execute(statement)


async def take_turn(transaction: Transaction, token_hash: bytes) -> DeviceLogin | None:
    """Returns the log-in if a request to its issuer is due, and sets the time of the next request; else None."""
    statement = (
        update(DEVICE_LOGINS)
        .where(
            DEVICE_LOGINS.c.token_hash == token_hash,
            DEVICE_LOGINS.c.next_poll_at <= func.clock_timestamp(),
            DEVICE_LOGINS.c.expires_at > func.clock_timestamp(),
        )
        .values(
            next_poll_at=func.clock_timestamp()
            + func.make_interval(0, 0, 0, 0, 0, 0, DEVICE_LOGINS.c.interval_seconds)
        )
        .returning(DEVICE_LOGINS.c.issuer, DEVICE_LOGINS.c.sealed_code, DEVICE_LOGINS.c.interval_seconds)
    )
    row = (await transaction.connection.execute(statement)).one_or_none()
    return None if row is None else DeviceLogin(row.issuer, row.sealed_code, row.interval_seconds)


async def wait_of(transaction: ReadTransaction, token_hash: bytes) -> timedelta | None:
    """Returns the time until the next request to the issuer is due; None if the log-in is unknown or has expired."""
    query = select((DEVICE_LOGINS.c.next_poll_at - func.clock_timestamp()).label("wait")).where(
        DEVICE_LOGINS.c.token_hash == token_hash, DEVICE_LOGINS.c.expires_at > func.clock_timestamp()
    )
    found: timedelta | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def slow_down(transaction: Transaction, token_hash: bytes, interval_seconds: int) -> None:
    """Increases a log-in's polling interval from now on."""
    statement = (
        update(DEVICE_LOGINS)
        .where(DEVICE_LOGINS.c.token_hash == token_hash)
        .values(
            interval_seconds=interval_seconds,
            next_poll_at=func.clock_timestamp() + timedelta(seconds=interval_seconds),
        )
    )
    await transaction.connection.execute(statement)


async def end(transaction: Transaction, token_hash: bytes) -> bool:
    """Deletes a log-in; returns whether it existed: only one of two concurrent calls gets True."""
    statement = (
        delete(DEVICE_LOGINS)
        .where(DEVICE_LOGINS.c.token_hash == token_hash)
        .returning(DEVICE_LOGINS.c.token_hash)
    )
    return (await transaction.connection.execute(statement)).one_or_none() is not None
