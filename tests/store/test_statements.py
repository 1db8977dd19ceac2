"""Statements written in SQLAlchemy reach PostgreSQL, and results equal the inserted values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, JSONB

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store import statements
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.results import RowCountError
from pilothouse_server.store.statements import StatementError
from tests.conftest import new_database
from tests.store.pools import create_statements, pool_of

THINGS = Table(
    "things",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("count", Integer),
    Column("on", Boolean),
    Column("name", String(20)),
    Column("words", ARRAY(Text)),
    Column("document", JSONB),
    Column("raw", LargeBinary),
    Column("price", Numeric(40, 3)),
    Column("ratio", Double),
    Column("at", DateTime(timezone=True)),
    Column("took", INTERVAL),
    Column("uid", Uuid),
    Column("code", String(3)),
)
SECRET = "hunter2-and-more"


@pytest_asyncio.fixture(loop_scope="session")
async def connection(postgres: EmbeddedPostgres) -> AsyncIterator[Connection]:
    async with (
        new_database(postgres) as database,
        pool_of(database.admin_dsn) as pool,
        pool.connect() as opened,
    ):
        for statement in create_statements(THINGS.metadata):
            await opened.command(statement)
        yield opened


VALUES: dict[str, list[Any]] = {
    "count": [0, -(2**31), 2**31 - 1],
    "on": [True, False],
    "name": ["", "ä€𝄞", "it's \\ :name $1 %s"],
    "words": [[], ["a", None, "b,c"], ['"', "{}"]],
    "document": [
        {},
        [],
        {"a": [1, None, True, "x", {"b": {}}]},
        {"big": 2**70, "small": -(2**63) - 1, "exact": 2**53 + 1},
        {"float": 0.1, "whole": 1e22, "tiny": 5e-324},
        "text",
        7,
        {"unicode": '\u2028 \\ " 𝄞'},
    ],
    "raw": [b"", bytes(range(256))],
    "price": [Decimal("0.000"), Decimal("-12345678901234567890123456789.125")],
    "ratio": [0.1, float("inf"), -0.0, 5e-324],
    "at": [datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC)],
    "took": [timedelta(0), timedelta(days=-400, seconds=3, microseconds=1)],
    "uid": [UUID(int=0), UUID(int=2**128 - 1)],
}


@pytest.mark.parametrize("name", VALUES)
async def test_values_are_read_as_they_were_written(connection: Connection, name: str) -> None:
    for number, value in enumerate([None, *VALUES[name]]):
        await connection.execute(insert(THINGS).values(id=number, **{name: value}))
        row = (await connection.execute(select(THINGS).where(THINGS.c.id == number))).one()
        found = getattr(row, name) if name != "count" else row[name]
        assert (found, type(found)) == (value, type(value)) or (value, found) == (found, value)
        if value is not None and not isinstance(value, UUID):
            assert type(found) is type(value)


def _forget_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empties the cache, which statements of earlier tests may have filled."""
    monkeypatch.setattr(statements, "_forms", type(statements._forms)())


def _forms_of_things() -> int:
    """Returns the number of cached forms for this table.

    Servers of other tests in this process may compile other statements at the same time.
    """
    return sum(" things" in form.sql for form in statements._forms.values())


async def test_every_number_of_values_is_one_statement(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute(insert(THINGS), [{"id": number, "name": f"n{number}"} for number in range(9)])

    async def ids(condition: Any) -> list[int]:
        return (
            await connection.execute(select(THINGS.c.id).where(condition).order_by(THINGS.c.id))
        ).scalars()

    _forget_forms(monkeypatch)
    for values in ([], [3], (1, 2, 99), frozenset({4, 5}), range(5), {7}):
        assert await ids(THINGS.c.id.in_(values)) == sorted(set(values) & set(range(9)))
        assert await ids(THINGS.c.id.not_in(values)) == sorted(set(range(9)) - set(values))
    assert await ids(THINGS.c.name.in_(["n1", "n8", "none"])) == [1, 8]
    assert await ids(THINGS.c.id.in_(select(THINGS.c.id).where(THINGS.c.name == "n3"))) == [3]
    assert _forms_of_things() == 4


async def test_one_form_serves_other_values(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    await connection.execute(insert(THINGS), [{"id": number, "count": number} for number in range(5)])
    _forget_forms(monkeypatch)
    for low, high in ((0, 2), (1, 4), (3, 3)):
        query = (
            select(THINGS.c.id)
            .where(THINGS.c.id >= low, THINGS.c.count <= high, THINGS.c.id >= bindparam("least"))
            .order_by(THINGS.c.id)
        )
        # The same object with another value, and another object with the same form.
        for least in (0, 2):
            found = (await connection.execute(query, {"least": least})).scalars()
            assert found == [number for number in range(5) if max(low, least) <= number <= high]
    assert _forms_of_things() == 1


async def test_a_statement_derived_from_another_is_not_confused_with_it(connection: Connection) -> None:
    await connection.execute(insert(THINGS), [{"id": number} for number in range(6)])
    query = select(THINGS.c.id).order_by(THINGS.c.id)
    assert len((await connection.execute(query)).all()) == 6
    for limit in range(1, 6):
        # Each statement is created, run and freed, so the next one may have the same address in memory.
        assert len((await connection.execute(query.limit(limit))).all()) == limit
        assert len((await connection.execute(query.where(THINGS.c.id < limit))).all()) == limit


async def test_an_update_writes_the_columns_that_it_is_given(connection: Connection) -> None:
    await connection.execute(insert(THINGS), {"id": 1, "name": "a", "count": 1})
    change = update(THINGS).where(THINGS.c.id == bindparam("which"))
    await connection.execute(change, {"which": 1, "name": "b"})
    await connection.execute(change, {"which": 1, "count": 2})
    await connection.execute(change.values(code=func.upper("x")), {"which": 1})
    row = (await connection.execute(select(THINGS))).one()
    assert (row.name, row["count"], row.code) == ("b", 2, "X")
    await connection.execute(delete(THINGS).where(THINGS.c.id == 1))
    assert (await connection.execute(select(THINGS))).all() == []


async def test_many_rows_are_all_written_or_none(connection: Connection) -> None:
    rows = [{"id": number, "code": code} for number, code in enumerate(["a", "b", "long"])]
    with pytest.raises(asyncpg.StringDataRightTruncationError):
        await connection.execute(insert(THINGS), rows)
    assert (await connection.execute(select(THINGS))).all() == []
    await connection.execute(insert(THINGS), rows[:2])
    await connection.execute(insert(THINGS), [])
    assert len((await connection.execute(select(THINGS))).all()) == 2


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("INSERT INTO things (id, name) VALUES (1, :secret), (1, :secret)", {"secret": SECRET}),
        ("SELECT CAST(CAST(:secret AS text) AS integer)", {"secret": SECRET}),
        ("SELECT CAST(:secret AS integer)", {"secret": SECRET}),
        ("SELECT CAST(CAST(:secret AS text) AS jsonb)", {"secret": SECRET}),
        ("SELECT CAST(:secret AS timestamptz)", {"secret": SECRET}),
        ("SELECT :nothing", {"secret": SECRET}),
    ],
)
async def test_errors_contain_no_values(
    connection: Connection, statement: str, parameters: dict[str, Any]
) -> None:
    with pytest.raises((asyncpg.PostgresError, StatementError)) as caught:
        await connection.execute(text(statement), parameters)
    told, error = "", caught.value.with_traceback(None)
    while isinstance(error, BaseException):
        told += f"{error} {error!r} {error.args}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert SECRET not in told
    assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_asyncpg_s_own_errors_contain_values(connection: Connection) -> None:
    """The control of the test above."""
    with pytest.raises(asyncpg.DataError, match="hunter2"):
        await connection.driver.fetch("SELECT CAST($1 AS integer)", SECRET)


def test_columns_that_need_conversion_are_refused() -> None:
    for column in (Column("x", Float(asdecimal=True)), Column("x", Numeric(asdecimal=False))):
        with pytest.raises(StatementError, match="which the driver does not return"):
            statements.ready(select(Table("t", MetaData(), column)), {})
    with pytest.raises(StatementError, match="default"):
        statements.ready(insert(Table("t", MetaData(), Column("x", Integer, default=lambda: 1))), {})


async def test_results_check_the_number_of_rows(connection: Connection) -> None:
    for number in (0, 1, 2):
        result = await connection.execute(text("SELECT generate_series(1, :number) AS n"), {"number": number})
        assert [row.n for row in result] == list(range(1, number + 1))
        assert (result.first() is None) == (number == 0)
        if number == 1:
            assert result.one().n == result.scalar_one() == result.scalar_one_or_none() == 1
        else:
            with pytest.raises(RowCountError):
                result.one()
        if number == 2:
            with pytest.raises(RowCountError):
                result.one_or_none()
        if number == 0:
            assert result.one_or_none() is None
            assert result.scalar_one_or_none() is None
        with pytest.raises(AttributeError):
            _ = (result.first() or (await connection.execute(text("SELECT 1 AS one"))).one()).missing


async def test_caches_are_bounded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "MOST_FORMS", 5)
    monkeypatch.setattr(statements, "MOST_STATEMENTS", 5)
    _forget_forms(monkeypatch)
    monkeypatch.setattr(statements, "_statements", {})
    kept = [text(f"SELECT {number}") for number in range(20)]
    for _ in range(2):
        for number, statement in enumerate(kept):
            assert (await connection.execute(statement)).scalar_one() == number
    assert len(statements._forms) <= 5
    assert len(statements._statements) <= 5
