"""Servers of identity: one for each test that counts rows, one shared by the others of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.identity.server import Caller, IdentityServer, running


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database) -> AsyncIterator[IdentityServer]:
    """A server on an empty database, with the shipped roles and the bootstrap administrator."""
    async with running(database) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def admin(server: IdentityServer) -> Caller:
    """The bootstrap administrator of `server`, logged in."""
    return await server.admin()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[IdentityServer]:
    """A server for the tests of a module, which use names of their own."""
    async with new_database(postgres, template_database.name) as database, running(database) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def root(shared: IdentityServer) -> Caller:
    """The bootstrap administrator of `shared`, logged in."""
    return await shared.admin()
