"""The functions that read by key are the statements of the repositories, word by word."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import BindParameter, ColumnElement, Dialect, Integer, Select, bindparam
from sqlalchemy.dialects import postgresql

from pilothouse_server.config.repository import rows
from pilothouse_server.containers.repository.cached import cached as cached_containers
from pilothouse_server.containers.tables import CONTAINERS
from pilothouse_server.namespaces.repository import cached as cached_namespaces
from pilothouse_server.namespaces.tables import NAMESPACES
from pilothouse_server.network.repository import cached as cached_services
from pilothouse_server.network.tables import SERVICES
from pilothouse_server.storage.repository import cached as cached_volumes
from pilothouse_server.storage.tables import VOLUMES
from pilothouse_server.store import references
from tests.conftest import Database

_FORMAT: BindParameter[int] = bindparam("format", type_=Integer())


def _named(statement: Select[Any], name: ColumnElement[str]) -> Select[Any]:
    return statement.where(references.NAMESPACES.c.name == bindparam("namespace"), name == bindparam("name"))


# The selects that lists are made of, of a name.
_STATEMENTS = {
    "read_container": _named(cached_containers(_FORMAT), CONTAINERS.c.name),
    "read_volume": _named(cached_volumes(_FORMAT), VOLUMES.c.name),
    "read_config_map": _named(rows.cached("config_map", _FORMAT), rows.TABLES["config_map"].c.name),
    "read_secret": _named(rows.cached("secret", _FORMAT), rows.TABLES["secret"].c.name),
    "read_service": _named(cached_services(_FORMAT), SERVICES.c.name),
    "read_namespace": cached_namespaces(_FORMAT).where(NAMESPACES.c.name == bindparam("name")),
}


def _words(statement: Select[Any]) -> str:
    """The statement as PostgreSQL gets it, with the function's parameters."""
    dialect: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = str(statement.compile(dialect=dialect))
    return " ".join(re.sub(r"(?<!:):([a-z_]+)(::[A-Z]+)?", r"p_\1", compiled).split())


async def _returned(database: Database, name: str) -> str:
    """Returns the function's result."""
    async with database.owner() as owner:
        body = str(await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = $1", name))
    query = re.search(r"RETURN QUERY(.*);\s*END", body, re.DOTALL)
    assert query is not None, body
    return " ".join(query[1].split())


@pytest.mark.parametrize("name", _STATEMENTS)
async def test_a_function_is_the_statement_of_its_repository(database: Database, name: str) -> None:
    assert await _returned(database, name) == _words(_STATEMENTS[name])


async def test_every_function_that_reads_by_key_is_compared(database: Database) -> None:
    async with database.owner() as owner:
        found = await owner.fetch(
            "SELECT proname FROM pg_proc WHERE prosrc LIKE '%RETURN QUERY%app_reach%'"
            " OR prosrc LIKE '%app_reach%RETURN QUERY%'"
        )
    assert {row["proname"] for row in found} == set(_STATEMENTS)


async def test_a_statement_that_has_drifted_is_found(database: Database) -> None:
    assert await _returned(database, "read_container") != _words(
        _named(cached_containers(_FORMAT), CONTAINERS.c.kubernetes_name)
    )
