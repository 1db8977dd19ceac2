"""A fake server for each test, and clients that lead to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from pilothouse_client import AsyncClient, RetryPolicy
from tests.client.fake_server import FakeServer

# Retries as in production, but fast.
QUICK = RetryPolicy(initial_delay=0.001, greatest_delay=0.01, watch_patience=10.0)
PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def client(fake: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, retry=QUICK) as made:
        yield made
