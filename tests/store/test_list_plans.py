"""A page of a list over all namespaces costs as much as it shows, not as much as exists.

The cost is the number of rows that its plan reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import orjson
import pytest
import pytest_asyncio

from pilothouse_server.config.operations.configs import CACHED as CONFIGS
from pilothouse_server.containers.operations import CACHED as CONTAINERS
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.metrics.repository import series
from pilothouse_server.storage.operations import CACHED as VOLUMES
from pilothouse_server.store import cached_rows, statements
from pilothouse_server.store.cached_rows import CachedRows
from pilothouse_server.store.in_namespaces import Matching
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction
from tests.conftest import Database, connection, new_database

NAMESPACES = 20
ROWS = 10_000
# A user with access to everything, and one with access to three of the twenty namespaces.
EVERYTHING, SOME = 1, 2
PAGE = PageRequest(key=b"k" * 32, page_size=50)
_FILL = f"""
INSERT INTO clusters (name, api_server) VALUES ('local', 'https://127.0.0.1');
INSERT INTO namespaces (id, name, kubernetes_name, cluster_name)
SELECT i, 'space-' || i, 'space-' || i, 'local' FROM generate_series(1, {NAMESPACES}) AS i;
INSERT INTO users (id, username, email, username_normalized, email_normalized, password_hash)
SELECT i, 'user-' || i, 'user-' || i, 'user-' || i, 'user-' || i, '' FROM generate_series(1, 2) AS i;
INSERT INTO roles (id, name, display_name, permissions) VALUES (100, 'all', 'All', '["*"]');
INSERT INTO user_roles (user_id, role_id, namespace_id)
VALUES ({EVERYTHING}, 100, NULL), ({SOME}, 100, 1), ({SOME}, 100, 2), ({SOME}, 100, 3);
INSERT INTO containers (name, kubernetes_name, namespace_id, image_id, status, spec, created_at)
SELECT 'web-' || i, 'web-' || i, i % {NAMESPACES} + 1, register_image(NULL, 'nginx', '1.27', NULL),
    (ARRAY['running', 'pending', 'failed', 'stopped'])[i / {NAMESPACES} % 4 + 1], '{{"image": "nginx:1.27"}}',
    timestamptz '2026-01-01' + i % 7 * interval '1 day'
FROM generate_series(1, {ROWS}) AS i;
INSERT INTO environment_variables (container_id, namespace_id, name, value)
SELECT id, namespace_id, 'FIRST', 'value' FROM containers;
INSERT INTO volumes (name, namespace_id, type, size, access_mode)
SELECT 'data-' || i, i % {NAMESPACES} + 1, 'persistent_volume_claim', '1Gi', 'ReadWriteOnce'
FROM generate_series(1, {ROWS}) AS i;
INSERT INTO config_maps (name, namespace_id, kubernetes_name, data)
SELECT 'settings-' || i, i % {NAMESPACES} + 1, 'settings-' || i, '{{}}' FROM generate_series(1, {ROWS}) AS i;
UPDATE containers SET resource_version = resource_version + 1;
"""
_BIG = ("containers", "environment_variables", "volumes", "config_maps")


class Asked:
    """Stands in for a connection: stores the statement, and returns no rows."""

    def __init__(self) -> None:
        self.statement: Any = None

    async def execute(self, statement: Any) -> Any:
        self.statement = statement
        return SimpleNamespace(all=list)


class Read(Asked):
    """Stands in for a connection: returns the rows."""

    def __init__(self, app: asyncpg.Connection) -> None:
        super().__init__()
        self._app = app

    async def execute(self, statement: Any) -> Any:
        rows = await self._app.fetch(*rendered(statement), record_class=Row)
        return SimpleNamespace(all=lambda: rows)


def rendered(statement: Any) -> tuple[Any, ...]:
    """Returns a statement as PostgreSQL receives it, and its parameters."""
    ready = statements.ready(statement, {})
    return ready.sql, *ready.arguments({})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[Database]:
    async with new_database(postgres, template_database.name) as database:
        async with database.owner() as owner:
            await owner.execute(_FILL)
            for table in _BIG:
                await owner.execute(f"VACUUM (ANALYZE) {table}")
        yield database


_LISTS: dict[str, CachedRows[Any, Any]] = {
    "containers": CONTAINERS,
    "volumes": VOLUMES,
    "config_maps": CONFIGS["config_map"],
}


async def _as_they_are(rows: Sequence[Any], *_functions: Any) -> Sequence[Any]:
    return rows


async def listed(asked: Asked, noun: str, page: PageRequest, visible: Sequence[int] | None) -> NextPage:
    """Executes a noun's list, and returns the position of its next page."""
    transaction = cast(ReadTransaction, SimpleNamespace(connection=asked))
    if noun == "subjects of usage":
        found = await series.subjects(
            transaction, page, container="", namespace_id=None, visible=cast(Any, visible)
        )
        return found[1]
    with pytest.MonkeyPatch.context() as patch:
        # The later processing of the rows does not matter here.
        patch.setattr(cached_rows, "with_missing", _as_they_are)
        return (await _LISTS[noun].list_page(transaction, page, Matching(None, None, visible), 1))[1]


async def statement_of(noun: str, page: PageRequest, visible: Sequence[int] | None) -> Any:
    """Returns the statement that a noun's list executes."""
    asked = Asked()
    await listed(asked, noun, page, visible)
    return asked.statement


async def touched(app: asyncpg.Connection, statement: Any) -> int:
    """Returns how many rows of the big tables a statement reads, including those that it filters out."""
    sql, *parameters = rendered(statement)
    plan = await app.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", *parameters)
    return _rows(orjson.loads(plan)[0]["Plan"])


def _rows(node: dict[str, Any]) -> int:
    own = 0
    if node.get("Relation Name") in _BIG:
        own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own += node.get("Rows Removed by Index Recheck", 0)
    return int(own * node["Actual Loops"]) + sum(_rows(child) for child in node.get("Plans", ()))


async def touched_by_pages(database: Database, user: int, noun: str, page: PageRequest) -> tuple[int, int]:
    """Returns the number of rows read by the first page, and by one in the middle of the list."""
    visible = None if user == EVERYTHING else [1, 2, 3]
    async with database.app(user) as app:
        await app.execute("SET LOCAL jit = off")
        first = await touched(app, await statement_of(noun, page, visible))
        following = await listed(Read(app), noun, replace(page, page_size=700), visible)
        token = following.after(700)
        assert token
        return first, await touched(app, await statement_of(noun, replace(page, page_token=token), visible))


# A page of fifty rows and one more: each row is read in the index, in the table, and with its related rows.
WHOLE_PAGE = 51 * 3
# Three namespaces of twenty: one of seven rows in the order of names belongs to them.
THEIRS = 51 * 10


@pytest.mark.parametrize(
    ("noun", "order_by"),
    [
        ("containers", "name"),
        ("containers", "name desc"),
        ("containers", "create_time"),
        ("containers", "create_time desc"),
        ("containers", "status"),
        ("containers", "status desc"),
        ("volumes", "name"),
        ("config_maps", "name"),
    ],
)
async def test_a_page_over_all_namespaces_reads_only_its_rows(
    filled: Database, noun: str, order_by: str
) -> None:
    page = replace(PAGE, order_by=order_by)
    for rows in await touched_by_pages(filled, EVERYTHING, noun, page):
        assert 51 <= rows <= WHOLE_PAGE
    for rows in await touched_by_pages(filled, SOME, noun, page):
        assert 51 <= rows <= THEIRS + WHOLE_PAGE


@pytest.mark.parametrize("wanted", ["status = FAILED", "status = FAILED OR status = STOPPED"])
async def test_a_filtered_page_reads_only_the_rows_that_it_skips(filled: Database, wanted: str) -> None:
    for rows in await touched_by_pages(filled, EVERYTHING, "containers", replace(PAGE, filter=wanted)):
        # The rows have four statuses in turn.
        assert 51 <= rows <= 51 * 6 + WHOLE_PAGE


async def test_a_page_of_usage_subjects_reads_few_namespaces(filled: Database) -> None:
    """The order is by namespace and name: namespaces come in order, and containers are sorted per namespace."""
    page = replace(PAGE, page_size=55)
    async with connection(filled.admin_dsn) as admin:
        # PostgreSQL 15 reads all names and sorts them.
        most = 3 * ROWS / NAMESPACES if admin.get_server_version().major > 15 else ROWS
    for rows in await touched_by_pages(filled, EVERYTHING, "subjects of usage", page):
        assert 56 <= rows <= most


async def test_without_the_index_the_whole_table_is_read(filled: Database) -> None:
    """Controls the tests above."""
    async with connection(filled.admin_dsn) as admin:
        changed = admin.transaction()
        await changed.start()
        await admin.execute("DROP INDEX idx_containers_name")
        await admin.execute(f"SELECT set_config('app.current_user_id', '{EVERYTHING}', true)")
        await admin.execute("SET LOCAL ROLE pilothouse_app")
        assert await touched(admin, await statement_of("containers", PAGE, None)) >= ROWS
        await changed.rollback()
