"""Databases that start as copies of a template."""

from __future__ import annotations

import os
import time
from pathlib import Path

import asyncpg
import pytest

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.launch.embedded.template import DatabaseTemplate
from tests.embedded.test_postgres import FAST


@pytest.mark.full
async def test_a_new_database_starts_as_a_copy_of_the_first(tmp_path: Path) -> None:
    first, second = (EmbeddedPostgres(tmp_path / name, settings=FAST) for name in ("first", "second"))
    template = DatabaseTemplate(tmp_path / "cache/pilothouse")
    assert not await template.copy_to(second)
    await _execute(first, "CREATE TABLE made_before ()")
    unused, used = (tmp_path / "cache/pilothouse" / name for name in ("postgres-a", "postgres-b"))
    for folder in (unused, used):
        folder.mkdir(parents=True)
    a_month_ago = time.time() - 31 * 86_400
    os.utime(unused, (a_month_ago, a_month_ago))
    await template.take_from(first)
    # Another server has created the same template in the meantime.
    await template.take_from(first)
    assert (unused.exists(), used.exists()) == (False, True)
    assert len(list((tmp_path / "cache/pilothouse").iterdir())) == 2
    assert await template.copy_to(second)
    await _execute(second, "DROP TABLE made_before")


async def _execute(server: EmbeddedPostgres, statement: str) -> None:
    await server.start()
    try:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute(statement)
        await connection.close()
    finally:
        await server.stop()
