"""One environment for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conftest import Database
from tests.reconcile.environment import Environment, environment


@pytest_asyncio.fixture(loop_scope="session")
async def here(database: Database) -> AsyncIterator[Environment]:
    """Yields a database and a cluster; no reconciler runs yet."""
    async with environment(database) as made:
        yield made
