"""How a transaction is opened in somebody's name, and ended whatever happened in it.

The caller's id is set with `set_config(…, true)` before anything else, for row-level security, and ends with the
transaction, also behind a pooler.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pilothouse_server.store.errors import connecting, translated
from pilothouse_server.tasks import uncancelled

_IDENTIFY = text(
    "SELECT set_config('app.current_user_id', :user_id, true), "
    "set_config('app.operation_id', :operation_id, true), transaction_timestamp() AS now"
)
_LOOK = (
    "BEGIN READ ONLY; SELECT set_config('app.current_user_id', '{}', true), "
    "set_config('app.operation_id', '', true)"
)


async def identify(connection: AsyncConnection, user_id: int | None, operation_id: UUID | None) -> datetime:
    """Say who acts, as a transaction's first statement; answers when it began, by the database's clock."""
    row = await connection.execute(
        _IDENTIFY,
        {
            "user_id": "" if user_id is None else str(user_id),
            "operation_id": "" if operation_id is None else str(operation_id),
        },
    )
    now: datetime = row.one().now
    return now


@asynccontextmanager
async def reading(
    engine: AsyncEngine, user_id: int | None, *, snapshot: bool
) -> AsyncIterator[tuple[AsyncConnection, datetime]]:
    """A transaction that is rolled back at the end, and when it began; `snapshot` sees one moment throughout."""
    with connecting():
        connection = await engine.connect()
    with translated():
        try:
            if snapshot:
                await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection, await identify(connection, user_id, None)
        finally:
            await uncancelled(_end_reading(connection))


@asynccontextmanager
async def looking(engine: AsyncEngine, user_id: int) -> AsyncIterator[AsyncConnection]:
    """The same for the many short reads: the transaction begins and learns who asks in one round trip.

    The driver is told not to begin transactions of its own; a simple query holds several statements, and no
    parameters, but the id is a number of ours.
    """
    with connecting():
        connection = await engine.connect()
    with translated():
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await _by_driver(connection, _LOOK.format(int(user_id)))
            yield connection
        finally:
            await uncancelled(_end_looking(connection))


@asynccontextmanager
async def autocommitting(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in nobody's name, whose statements are each a transaction: no lock outlives its statement."""
    with connecting():
        connection = await engine.connect()
    with translated():
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection
        finally:
            await uncancelled(connection.close())


async def discard(connection: AsyncConnection) -> None:
    """Rolls back and gives the connection back to the pool, whatever state it is in."""
    try:
        await connection.rollback()
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the connection must not be used again
        await connection.invalidate()
    finally:
        await connection.close()


async def _by_driver(connection: AsyncConnection, statements: str) -> None:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute(statements)


async def _end_looking(connection: AsyncConnection) -> None:
    try:
        await _by_driver(connection, "ROLLBACK")
    except Exception:  # noqa: BLE001 - what was read was read; nobody else may go on in this transaction
        await connection.invalidate()
    finally:
        await connection.close()


async def _end_reading(connection: AsyncConnection) -> None:
    try:
        await connection.rollback()
    finally:
        await connection.close()
