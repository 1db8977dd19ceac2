"""Beginning a new history by hand, for a database that went back where no server could notice it.

A server notices by what it keeps in its data folder. Who restored that together with the database, or serves a copy
from another machine, says it by `pilothouse migrate new-history`; a restore says it by itself.
"""

from __future__ import annotations

import asyncpg

from pilothouse_migrations import schema
from pilothouse_migrations.roles import OWNER, driver_dsn

_SECONDS = 60.0


async def begin_new_history(dsn: str, reason: str) -> str:
    """Begins a new history, with its record in the audit log; returns its name.

    `dsn` is the maintenance login's. Tokens of watches from before are refused from now on, and running watches end.

    Raises what `schema.check` does, and schema.RefusedError where the database does not let it.
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
