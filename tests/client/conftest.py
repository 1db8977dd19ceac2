"""A fake server for each test, and clients and a command that connect to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner

from pilothouse_client import AsyncClient, RetryPolicy, cli
from tests.client.command import Command, Ended
from tests.client.fake_server import FakeServer

# Retries like those in production, but with short delays.
QUICK = RetryPolicy(attempts=6, initial_delay=0.001, greatest_delay=0.01, watch_patience=10.0)
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


@pytest.fixture
def pilothouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in a thread, next to the event loop that serves it, with its own configuration."""
    for name in [name for name in os.environ if name.startswith("PILOTHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PILOTHOUSE_CONFIG", str(tmp_path / "config.json"))

    async def run(*arguments: str, stdin: str | None = None) -> Ended:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest_asyncio.fixture
async def logged_in(fake: FakeServer, pilothouse: Command) -> Command:
    ended = await pilothouse(
        "login",
        "--server",
        fake.address,
        "--user",
        "admin",
        "--password-stdin",
        "-n",
        "shop",
        stdin=PASSWORD + "\n",
    )
    assert ended.code == 0, ended.err
    return pilothouse
