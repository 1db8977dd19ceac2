"""Pools like the server's, on a database and in a role that a test chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from pilothouse_server.settings.model import Settings
from pilothouse_server.store import engine
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.pool import Pool


@asynccontextmanager
async def pool_of(dsn: str, **settings: Any) -> AsyncIterator[Pool]:
    """Yields a pool that logs in as a DSN says and assumes no role.

    The pool is closed at the end of the block.
    """
    chosen = Settings(database_url=dsn, **settings)
    opener = engine._opener(dsn, chosen, "app", engine.STATEMENT_TIMEOUT_SECONDS, "")
    pool = Pool(opener, Pools.connect(chosen).app.limits)
    try:
        yield pool
    finally:
        await pool.close()


def create_statements(metadata: MetaData) -> Iterator[str]:
    """Yields the SQL that creates tables without foreign keys."""
    for table in metadata.tables.values():
        yield str(CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
