"""The functions that read by key contain the statements of the repositories, word for word."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import BindParameter, Dialect, Integer, Select, bindparam
from sqlalchemy.dialects import postgresql

from pilothouse_server.config.operations.configs import CACHED as CONFIGS
from pilothouse_server.containers.operations import CACHED as CONTAINERS
from pilothouse_server.namespaces.repository import cached as cached_namespaces
from pilothouse_server.namespaces.tables import NAMESPACES
from pilothouse_server.network.operations import CACHED as SERVICES
from pilothouse_server.storage.operations import CACHED as VOLUMES
from pilothouse_server.store import references
from pilothouse_server.store.cached_rows import CachedRows
from tests.conftest import Database

_FORMAT: BindParameter[int] = bindparam("format", type_=Integer())


_NOUNS: tuple[CachedRows[Any, Any], ...] = (CONTAINERS, VOLUMES, SERVICES, *CONFIGS.values())


def _named(rows: CachedRows[Any, Any], column: str) -> Select[Any]:
    """Returns the select of the lists, restricted to one name."""
    return rows.select(_FORMAT).where(
        references.NAMESPACES.c.name == bindparam("namespace"), rows.table.c[column] == bindparam("name")
    )


_STATEMENTS = {f"read_{each.resource_type}": _named(each, "name") for each in _NOUNS} | {
    "read_namespace": cached_namespaces(_FORMAT).where(NAMESPACES.c.name == bindparam("name"))
}


def _words(statement: Select[Any]) -> str:
    """Returns the statement as PostgreSQL receives it, with the function's parameters."""
    dialect: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = str(statement.compile(dialect=dialect))
    return " ".join(re.sub(r"(?<!:):([a-z_]+)(::[A-Z]+)?", r"p_\1", compiled).split())


async def _returned(database: Database, name: str) -> str:
    """Returns the query of the function."""
    async with database.owner() as owner:
        body = str(await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = $1", name))
    query = re.search(r"RETURN QUERY(.*);\s*END", body, re.DOTALL)
    assert query is not None, body
    return " ".join(query[1].split())


@pytest.mark.parametrize("name", _STATEMENTS)
async def test_a_function_equals_the_statement_of_its_repository(database: Database, name: str) -> None:
    assert await _returned(database, name) == _words(_STATEMENTS[name])


async def test_every_function_that_reads_by_key_is_compared(database: Database) -> None:
    async with database.owner() as owner:
        found = await owner.fetch(
            "SELECT proname FROM pg_proc WHERE prosrc LIKE '%RETURN QUERY%app_reach%'"
            " OR prosrc LIKE '%app_reach%RETURN QUERY%'"
        )
    assert {row["proname"] for row in found} == set(_STATEMENTS)


async def test_a_statement_that_differs_is_detected(database: Database) -> None:
    assert await _returned(database, "read_container") != _words(_named(CONTAINERS, "kubernetes_name"))
