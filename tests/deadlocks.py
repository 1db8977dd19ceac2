"""Fails a test that leaves a deadlock behind.

PostgreSQL ends a deadlock after a second, and a caller of the API gets ABORTED. A deadlock means that two parts of
the product lock rows in different orders. Any test may run into one by chance, so each database is checked before it
is dropped.
"""

from __future__ import annotations

import re

import asyncpg

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres

# Names of databases whose tests cause deadlocks on purpose.
EXPECTED: set[str] = set()


async def check_deadlocks(admin: asyncpg.Connection, server: EmbeddedPostgres, name: str) -> None:
    """Raises AssertionError, with the statements that waited, if there were deadlocks in this database."""
    found = await admin.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", name)
    if found and name not in EXPECTED:
        log = server.log_path.read_text("utf-8", "replace")
        waits = re.findall(rf"@{name} DETAIL:  (Process \d+ waits .*(?:\n\t.*)*)", log)
        raise AssertionError("\n\n".join([f"{found} deadlocks in {name}", *waits]))
