"""The server that is attacked, made for each test that requests it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.conftest import Database
from tests.promises.hostile.ground import Ground
from tests.promises.hostile.ground import ground as made_ground


@pytest_asyncio.fixture(loop_scope="session")
async def ground(database: Database, tmp_path: Path) -> AsyncIterator[Ground]:
    """Yields a server process with default settings, and bystanders."""
    async with made_ground(database, tmp_path) as made:
        yield made
