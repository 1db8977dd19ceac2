"""One server with an HTTP port for all tests of a module.

Each test uses its own names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.gateway.browser import Browser, port_of
from tests.harness import Server, running_server

ALLOWED = "https://tools.example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    async with (
        new_database(postgres, template_database.name) as cloned,
        running_server(
            cloned,
            tmp_path_factory.mktemp("server"),
            http_listen="127.0.0.1:0",
            http_allowed_origins=ALLOWED,
        ) as running,
    ):
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def program(server: Server) -> AsyncIterator[Browser]:
    """Yields a program that calls with a token."""
    async with Browser(port_of(server), origin="", token=await server.token()) as made:
        yield made
