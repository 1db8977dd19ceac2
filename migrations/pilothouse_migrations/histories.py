"""Begins a new history by hand, for a rewound database that no server could detect.

A server detects a rewind by a file in its data folder. If that was restored together with the database, or the server
has another machine's copy, run `pilothouse migrate new-history`. `pilothouse restore` begins a new history by itself.
"""

from __future__ import annotations

import asyncpg

from pilothouse_migrations import schema
from pilothouse_migrations.roles import OWNER, driver_dsn

_SECONDS = 60.0


async def begin_new_history(dsn: str, reason: str) -> str:
    """Begins a new history, records it in the audit log, and returns its name.

    `dsn` is the maintenance login's. Earlier resume tokens of watches are refused from now on, and running watches end.

    Raises the errors of `schema.check`, and schema.RefusedError if the database refuses.
    """
    await schema.check(dsn)
    try:
        connection = await asyncpg.connect(driver_dsn(dsn), timeout=_SECONDS, command_timeout=_SECONDS)
        try:
            await connection.execute(f"SET ROLE {OWNER}")
            return str(await connection.fetchval("SELECT begin_new_history($1)", reason))
        finally:
            await connection.close(timeout=_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise schema.RefusedError(f"the database refused: {error}") from None
