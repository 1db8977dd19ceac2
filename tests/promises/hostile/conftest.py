"""The server that is attacked, made for each test that requests it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.conftest import Database
from tests.promises.hostile.environment import Environment
from tests.promises.hostile.environment import environment as made_environment


@pytest_asyncio.fixture(loop_scope="session")
async def environment(database: Database, tmp_path: Path) -> AsyncIterator[Environment]:
    """Yields a server process with default settings, and bystanders."""
    async with made_environment(database, tmp_path) as made:
        yield made
