"""The control of the check that no test leaves a deadlock behind."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection, new_database

_LOCK = "SELECT FROM pairs WHERE id = $1 FOR UPDATE"


async def _lock(sql: asyncpg.Connection, meet: asyncio.Barrier, first: int, second: int) -> None:
    async with sql.transaction():
        await sql.execute(_LOCK, first)
        await meet.wait()
        await sql.execute(_LOCK, second)


async def _deadlock(server: EmbeddedPostgres, template: str) -> None:
    meet = asyncio.Barrier(2)
    async with (
        new_database(server, template) as database,
        connection(database.admin_dsn) as one,
        connection(database.admin_dsn) as two,
    ):
        await one.execute("CREATE TABLE pairs AS SELECT generate_series(1, 2) AS id")
        locks = _lock(one, meet, 1, 2), _lock(two, meet, 2, 1)
        ended = await asyncio.gather(*locks, return_exceptions=True)
        assert [type(each) for each in ended].count(asyncpg.DeadlockDetectedError) == 1


async def test_a_deadlock_is_detected(postgres: EmbeddedPostgres, template_database: Database) -> None:
    with pytest.raises(AssertionError, match=r"1 deadlocks in test_\d+\n\nProcess ") as found:
        await _deadlock(postgres, template_database.name)
    assert str(found.value).count(_LOCK) == 2
