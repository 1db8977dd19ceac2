"""A hundred times as many credentials do not make authentication more expensive.

The test counts the pages that the query reads, which does not depend on the machine; `benchmarks` measures
seconds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import dialect

from pilothouse_server.identity.credentials.repository import api_keys, sessions
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection, new_database

pytestmark = pytest.mark.full

FEW, MANY = 1_000, 100_000
_USERS = """
INSERT INTO users (id, username, username_normalized, email, email_normalized, password_hash)
SELECT i, 'user-' || i, 'user-' || i, 'user-' || i, 'user-' || i, '!' FROM generate_series(1, 100) AS i;
INSERT INTO user_roles (user_id, role_id, namespace_id)
SELECT i, (SELECT min(id) FROM roles), NULL FROM generate_series(1, 100) AS i;
"""
# One session in ten is valid; the others were renewed, as after many logins in a short time.
_ROWS = """
INSERT INTO sessions (user_id, family_id, access_token_hash, refresh_token_hash, access_expires_at, refresh_expires_at,
    rotated_at)
SELECT i % 100 + 1, gen_random_uuid(), sha256(('a' || i)::bytea), sha256(('r' || i)::bytea), now() + interval '1 day',
    now() + interval '7 days', CASE WHEN i % 10 > 0 THEN now() END FROM generate_series($1::int + 1, $2::int) AS i
"""
_KEYS = """
INSERT INTO api_keys (user_id, name, key_hash, prefix, expires_at, rotated_at, revoked_at)
SELECT i % 100 + 1, 'key-' || i, sha256(('k' || i)::bytea), 'phk_', now() + interval '1 day', NULL,
    CASE WHEN i % 10 > 0 THEN now() END FROM generate_series($1::int + 1, $2::int) AS i
"""
QUERIES = {"session": (sessions._OF_TOKEN, "a10"), "key": (api_keys._PRINCIPAL, "k10")}


def _text(query: Select[Any]) -> str:
    """Returns the statement with `$1` for the hash and literals for other values."""
    compiled = query.compile(dialect=dialect())  # type: ignore[no-untyped-call]
    values = {name: f"'{value}'" for name, value in compiled.params.items()}
    return str(compiled) % {**values, "key": "$1::bytea", "token_hash": "$1::bytea"}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def cost(sql: asyncpg.Connection, kind: str) -> tuple[int, set[str]]:
    """Returns how many pages the query for a token reads, and its full scans."""
    query, token = QUERIES[kind]
    name = f"look_{kind}"
    await sql.execute(f"PREPARE {name} (bytea) AS {_text(query)}")
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} (sha256('{token}'))"
        await sql.fetch(explain)
        (row,) = await sql.fetch(explain)
    finally:
        await sql.execute(f"DEALLOCATE {name}")
    plan = json.loads(row[0])[0]["Plan"]
    assert plan["Actual Rows"] == 1
    whole = {
        node["Relation Name"]
        for node in _nodes(plan)
        if node["Node Type"] == "Seq Scan" and "Relation Name" in node
    }
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], whole


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowded(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[Database]:
    """Yields a database for this module, with users but without sessions and keys."""
    async with new_database(postgres, template_database.name) as database:
        async with connection(database.admin_dsn) as sql:
            await sql.execute(
                "INSERT INTO roles (name, display_name, permissions) VALUES ('all', 'All', '[\"*\"]')"
            )
            await sql.execute(_USERS)
        yield database


async def test_a_hundred_times_as_many_credentials_cost_no_more(crowded: Database) -> None:
    async with connection(crowded.admin_dsn) as sql:
        costs: dict[int, dict[str, int]] = {}
        before = 0
        for count in (FEW, MANY):
            for statement in (_ROWS, _KEYS):
                await sql.execute(statement, before, count)
            before = count
            await sql.execute("ANALYZE sessions; ANALYZE api_keys; ANALYZE users; ANALYZE user_roles")
            costs[count] = {}
            for kind in QUERIES:
                costs[count][kind], whole = await cost(sql, kind)
                assert not whole & {"sessions", "api_keys"}
        # An index with a hundred times as many entries is one or two levels higher.
        for kind in QUERIES:
            assert costs[MANY][kind] <= costs[FEW][kind] + 3, costs
        # The check detects a query that scans the table.
        async with sql.transaction():
            await sql.execute("ALTER TABLE sessions DROP CONSTRAINT uq_sessions_access_token_hash")
            touched, whole = await cost(sql, "session")
            assert touched > 10 * costs[MANY]["session"]
            assert "sessions" in whole
