"""Two tenants that share nothing, with rows in every table; see `tests.migrations.filling` for who is who."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pilothouse_server.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.migrations.filling import fill


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apart(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[Database]:
    """The tenants' database, for tests that leave it as it is and leave no connection to it open."""
    async with new_database(postgres, template_database.name) as cloned:
        async with cloned.owner() as owner:
            await fill(owner)
            await owner.execute("REFRESH MATERIALIZED VIEW container_summary; ANALYZE containers")
        yield cloned


@pytest_asyncio.fixture(loop_scope="session")
async def tenants(postgres: EmbeddedPostgres, apart: Database) -> AsyncIterator[Database]:
    """A database of the two tenants that a test may change."""
    async with new_database(postgres, apart.name) as cloned:
        yield cloned
