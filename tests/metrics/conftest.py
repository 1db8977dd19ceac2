"""A world for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conftest import Database
from tests.metrics.world import World, world_of


@pytest_asyncio.fixture(loop_scope="session")
async def world(database: Database) -> AsyncIterator[World]:
    """A world on an empty database."""
    async with world_of(database) as made:
        yield made
