"""Identity servers: one for each test, and one shared by a module.

Tests that count rows need their own server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.identity.server import Caller, IdentityServer, running


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database) -> AsyncIterator[IdentityServer]:
    """Yields a server on a new database.

    It has the shipped roles and the bootstrap administrator.
    """
    async with running(database) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def admin(server: IdentityServer) -> Caller:
    """Returns the bootstrap administrator of `server`, logged in."""
    return await server.admin()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[IdentityServer]:
    """Yields a server for all tests of a module; each test uses its own names."""
    async with new_database(postgres, template_database.name) as database, running(database) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def root(shared: IdentityServer) -> Caller:
    """Returns the bootstrap administrator of `shared`, logged in."""
    return await shared.admin()
