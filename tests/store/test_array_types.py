"""The built-in array types of a new connection equal those of the database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from pilothouse_server.store.array_types import ARRAYS
from tests.conftest import Database, connection
from tests.store.pools import pool_of

VALUES: dict[str, Any] = {
    "bool": True,
    "bytea": b"\x00'",
    "int2": 7,
    "int4": 70_000,
    "text": 'a "b", {c}',
    "varchar": "x",
    "int8": 1 << 40,
    "float4": 0.5,
    "float8": 0.1,
    "date": date(2026, 2, 3),
    "timestamptz": datetime(2026, 2, 3, 4, 5, tzinfo=UTC),
    "numeric": Decimal("1.50"),
    "uuid": UUID(int=5),
}


async def test_the_type_numbers_equal_those_of_the_database(database: Database) -> None:
    async with connection(database.admin_dsn) as admin:
        rows = await admin.fetch(
            "SELECT e.typname, e.typarray::int8, e.oid::int8 FROM pg_type AS e "
            "WHERE e.typnamespace = 'pg_catalog'::regnamespace AND e.typname = ANY($1) AND e.typdelim = ','",
            list(ARRAYS),
        )
    assert {row[0]: (row[1], row[2]) for row in rows} == ARRAYS


async def test_arrays_are_sent_and_read_without_type_queries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    ask = asyncpg.Connection._introspect_types

    async def counted(driver: Any, numbers: Any, timeout: Any) -> Any:
        asked.append(numbers)
        return await ask(driver, numbers, timeout)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", counted)
    async with pool_of(database.app_dsn) as pool, pool.connect() as taken:
        for name, value in VALUES.items():
            sent = [value, None, value]
            found = await taken.execute(text(f"SELECT CAST(:sent AS {name}[])"), {"sent": sent})
            assert found.scalar_one() == sent
        assert VALUES.keys() == ARRAYS.keys()
        assert asked == []
        # The driver queries other types.
        await taken.execute(text("SELECT CAST(:sent AS inet[])"), {"sent": []})
        assert len(asked) == 1
