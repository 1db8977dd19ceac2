"""The fixtures of the promises: environments, newly made or copied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.promises.furniture import Furniture
from tests.promises.world import World, quiet_world


@pytest_asyncio.fixture(loop_scope="session")
async def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Yields a server with two empty namespaces, in which nothing happens without a call."""
    async with quiet_world(database, tmp_path, monkeypatch) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_world(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Yields one environment for all tests of a module.

    Each test has its own users and resources.
    """
    with pytest.MonkeyPatch.context() as patching:
        async with (
            new_database(postgres, template_database.name) as database,
            quiet_world(database, tmp_path_factory.mktemp("shared"), patching) as made,
        ):
            yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def furniture(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Furniture]:
    """Makes the source of the filled environments."""
    made = Furniture(postgres, template_database, tmp_path_factory.mktemp("furnished"))
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def full_world(
    furniture: Furniture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Yields an environment with a target for every mutation."""
    async with furniture.world(tmp_path / "server", monkeypatch) as made:
        yield made
