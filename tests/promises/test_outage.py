"""The database is away: every call says so, and the server recovers by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pilothouse_migrations import runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.embedded.postgres import EmbeddedPostgres
from tests.conftest import addresses, connection
from tests.harness import eventually
from tests.promises.requests import OWN, request_for, workload
from tests.promises.test_errors import lacks
from tests.promises.world import quiet_world


async def test_a_database_that_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings={"fsync": "off", "full_page_writes": "off"})
    await postgres.start()
    try:
        database = addresses(postgres, "outage")
        async with connection(postgres.dsn()) as sql:
            await sql.execute("CREATE DATABASE outage")
        await ensure_roles(database.admin_dsn)
        await runner.upgrade(database.maintenance_dsn)
        async with quiet_world(database, tmp_path, monkeypatch) as world:
            rule = world.rule("WatchContainers")
            request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
            async with world.admin.watching(rule, request) as stream:
                token = (await anext(stream)).resume_token
            await postgres.stop()
            # Principals are kept for a second at most: some of these calls are known, the later are not.
            known_no_longer = time.monotonic() + 1.5
            while time.monotonic() < known_no_longer:
                for name, fields in (
                    ("GetContainer", {"namespace": OWN, "name": "web"}),
                    ("CreateContainer", {"namespace": OWN, "container": workload("web")}),
                    ("ListContainers", {}),
                ):
                    async with asyncio.timeout(10):
                        outcome = await world.call(name, fields)
                    assert outcome.code == "UNAVAILABLE", (name, outcome.message)
                    assert "database is not available" in outcome.message
                    assert outcome.reason == "DATABASE_UNAVAILABLE"
                    assert lacks(outcome) == []
            await postgres.start()

            async def recovered() -> bool:
                fields = {"namespace": OWN, "container": workload("after")}
                return (await world.call("CreateContainer", fields)).code in ("OK", "ALREADY_EXISTS")

            await eventually(recovered, seconds=15)
            request.resume_token = token
            outcome = await world.admin.invoke(rule, request)
            assert outcome.answer.container.name == "after"
    finally:
        await postgres.stop()
