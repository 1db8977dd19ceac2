"""Opens a transaction in an actor's name, and always ends it.

One round trip begins the transaction and sets the actor. The caller's id is set with `set_config(…, true)` before any
other statement, for row-level security, and ends with the transaction, also behind a pooler. The pool rolls back a
read-only transaction after its caller has continued.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import connecting, translated
from pilothouse_server.store.pool import Pool

_NOW = text("SELECT transaction_timestamp()")
# A simple query has several statements and no parameters; only integers and UUIDs of this server are put into it.
_IDENTITY = (
    "SELECT set_config('app.current_user_id', '{user_id}', true), "
    "set_config('app.operation_id', '{operation_id}', true)"
)
# Not READ WRITE: a server that takes no writes, by its setting or as a standby, reports that with the same SQLSTATE
# (25006) for all writes. A standby would refuse to begin a READ WRITE transaction with another SQLSTATE.
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED; " + _IDENTITY
_READ = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; " + _IDENTITY
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " + _IDENTITY
# A read-only transaction computes the caller's scope once, for all its statements. A transaction that writes may change
# the scope, so it does not.
_REACH = "; SELECT set_config('app.reach', app_reach(), true)"


async def begin(connection: Connection, user_id: int | None, operation_id: UUID) -> None:
    """Begins a transaction that writes."""
    await connection.command(_WRITE.format(user_id=_number(user_id), operation_id=operation_id))


async def began(connection: Connection) -> datetime:
    """Returns when the transaction began, by the database's clock."""
    now: datetime = (await connection.execute(_NOW)).scalar_one()
    return now


@asynccontextmanager
async def reading(
    pool: Pool, user_id: int | None, *, snapshot: bool, timed: bool = True
) -> AsyncIterator[tuple[Connection, datetime | None]]:
    """Opens a read-only transaction; yields its connection and when it began.

    The time is None unless it is `timed`. With `snapshot`, all its statements see the same moment.
    """
    async with Connected(pool) as connection:
        statements = _SNAPSHOT if snapshot else _READ
        await connection.command(_opened(statements, user_id))
        yield connection, await began(connection) if timed else None


class Connected:
    """Lends a connection without an actor.

    Each of its statements is a transaction: no lock outlives its statement.
    """

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        with connecting():
            self._connection = self._pool.take_now() or await self._pool.take()
        return self._connection

    async def __aexit__(self, type_: object, error: BaseException | None, traceback: object) -> None:
        assert self._connection is not None
        self._pool.give(self._connection)
        translated().__exit__(None, error, None)


class Looking(Connected):
    """Opens a read-only transaction for the many short reads, which read no time."""

    __slots__ = ("_user_id",)

    def __init__(self, pool: Pool, user_id: int | None) -> None:
        super().__init__(pool)
        self._user_id = user_id

    async def __aenter__(self) -> Connection:
        connection = await super().__aenter__()
        try:
            await connection.command(_opened(_READ, self._user_id))
        except BaseException as error:
            await self.__aexit__(None, error, None)
            raise
        return connection


def _opened(statements: str, user_id: int | None) -> str:
    opened = statements.format(user_id=_number(user_id), operation_id="")
    return opened if user_id is None else opened + _REACH


def _number(user_id: int | None) -> str:
    return "" if user_id is None else str(int(user_id))
