"""`pilothouse serve` in a separate process that a test can kill, forked from one that has loaded the modules."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pilothouse_client import AsyncClient
from tests.conftest import Database
from tests.harness import NOWHERE, PASSWORD
from tests.main_job import loaded
from tests.main_job.loaded import StartedCommand
from tests.waiting import within


class ServerProgram:
    """A server in a separate process, and an administrator who is logged in."""

    def __init__(self, process: StartedCommand, address: str) -> None:
        self._process = process
        self.client = AsyncClient(address, username="admin", password=PASSWORD)

    async def kill(self) -> None:
        """Kills the process, as in a power cut."""
        await self._process.kill()


def variables(database: Database, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a server on this database, with data and log in `folder`, and without a cluster."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(NOWHERE))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")},
        "PILOTHOUSE_KUBECONFIG": str(kubeconfig),
        "PILOTHOUSE_DATABASE_URL": database.app_dsn,
        "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
        "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
        "PILOTHOUSE_DATA_DIR": str(folder / "data"),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        **more,
    }


@asynccontextmanager
async def program(environment: Mapping[str, str]) -> AsyncIterator[ServerProgram]:
    """Yields a server that is killed at the end of the block if it still runs."""
    log = Path(environment["PILOTHOUSE_KUBECONFIG"]).with_name("server.log")
    with log.open("ab") as errors:
        process = await loaded.start(["serve"], environment, errors=errors.fileno())
    try:
        async with within(60):
            line = (await process.stdout.readline()).decode()
        assert "serves gRPC on" in line, log.read_text()[-2000:]
        serving = ServerProgram(process, line.split()[-1])
        try:
            yield serving
        finally:
            await serving.client.close()
    finally:
        await process.kill()
