"""An environment for each test, and a server for each file of tests that requests one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.metrics.environment import Environment, environment_of
from tests.metrics.served import Served, serving


@pytest_asyncio.fixture(loop_scope="session")
async def environment(database: Database) -> AsyncIterator[Environment]:
    """Yields an environment on an empty database."""
    async with environment_of(database) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Runs a server that the tests of a file share."""
    async with (
        new_database(postgres, template_database.name) as database,
        serving(database, tmp_path_factory.mktemp("server")) as made,
    ):
        yield made
