"""The world of the promises, made once for each test that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conftest import Database
from tests.promises.world import World, furnished, quiet_world


@pytest_asyncio.fixture(loop_scope="session")
async def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A server with two empty namespaces, and nothing that happens by itself."""
    async with quiet_world(database, tmp_path, monkeypatch) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def full_world(world: World) -> World:
    """The same with a target for every mutation."""
    await furnished(world)
    return world
