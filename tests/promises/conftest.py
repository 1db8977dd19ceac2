"""The fixtures of the promises: environments, newly made or copied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.promises.environment import Environment, quiet_environment
from tests.promises.environment_fixtures import EnvironmentTemplate


@pytest_asyncio.fixture(loop_scope="session")
async def environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    """Yields a server with two empty namespaces, in which nothing happens without a call."""
    async with quiet_environment(database, tmp_path, monkeypatch) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_environment(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    """Yields one environment for all tests of a module.

    Each test has its own users and resources.
    """
    with pytest.MonkeyPatch.context() as patching:
        async with (
            new_database(postgres, template_database.name) as database,
            quiet_environment(database, tmp_path_factory.mktemp("shared"), patching) as made,
        ):
            yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def environment_fixtures(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EnvironmentTemplate]:
    """Makes the source of the filled environments."""
    made = EnvironmentTemplate(postgres, template_database, tmp_path_factory.mktemp("furnished"))
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def full_environment(
    environment_fixtures: EnvironmentTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    """Yields an environment with a target for every mutation."""
    async with environment_fixtures.environment(tmp_path / "server", monkeypatch) as made:
        yield made
