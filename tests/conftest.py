"""One PostgreSQL server for the whole run, and one database for each test that requests it.

The schema is migrated once, into a template. `database` is a clone of the template (CREATE DATABASE … TEMPLATE copies
files, so a clone costs some tens of milliseconds) and is dropped after the test. Nothing is flushed to disk.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import structlog

from pilothouse_migrations import roles, runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.identity.credentials import passwords
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.rpc import listener_shards
from pilothouse_server.runtime.process_tuning import collect_rarely
from pilothouse_server.store import partitions
from tests import reduced
from tests.deadlocks import check_deadlocks
from tests.garbage import without_looks
from tests.main_job import loaded
from tests.migrations.filling import fill

if TYPE_CHECKING:
    from tests.harness import Server

# The event loop of the tests and of the servers in their process: `uvloop`, or empty for the standard library's.
LOOP = os.environ.get("PILOTHOUSE_TEST_EVENT_LOOP", "")
pytest_plugins = ["tests.tiers", "tests.hang_and_leak", "tests.prepared", *(["tests.loops"] if LOOP else [])]

TEMPLATE = "pilothouse_template"
StartMigrated = Callable[[EmbeddedPostgres, str], Awaitable[None]]
# The files that take a minute or more, the longest first: a long file that starts last would run alone at the end.
FIRST = (
    "benchmarks/test_rows.py",
    "migrations/test_other_postgres.py",
    "promises/over_time/test_controls.py",
    "recipes/test_noun.py",
    "promises/test_killed_at_every_write.py",
    "readme/test_make.py",
    "test_hang_and_leak.py",
    "promises/over_time/test_campaign.py",
    "reconcile/test_unseen_many.py",
    "migrations/test_under_load.py",
    "main_job/test_development.py",
    "readme/test_first_calls.py",
    "readme/test_safe_by_default.py",
    "reconcile/test_kills.py",
    "promises/watches/test_campaign.py",
    "config/test_hsm.py",
    "promises/test_failover.py",
    "promises/test_tenants_apart.py",
    "transparency/test_others.py",
    "main_job/test_rollouts.py",
    "main_job/test_starting.py",
    "backup/test_page.py",
    "config/test_commands.py",
    "config/test_secrets_stay_secret.py",
    "packaging/test_installed.py",
    "packaging/test_lowest.py",
    "clusters/test_many.py",
    "promises/watches/test_controls.py",
    "readme/test_readme.py",
    "promises/test_killed_deregistrations.py",
    "promises/test_killed_server.py",
)
# The folders whose files take the longest, and the folders whose files are all short and fill the end of a run.
LONG = (
    "readme",
    "main_job",
    "promises",
    "reconcile",
    "migrations",
    "clusters",
    "config",
    "storage",
    "watches",
)
SHORT = (
    *(
        "apply",
        "client",
        "conventions",
        "isolation",
        "kubernetes",
        "rpc",
        "simulator",
        "translator",
        "values",
    ),
    "watch",
)
_numbers = count(1)
# Drops the template's partitions that are further ahead than the tests' servers create them.
_DROP_SPARE = """
DO $$ DECLARE spare text; BEGIN
    FOR spare IN SELECT b.partition_name FROM (VALUES ('operation_logs', interval '1 month'),
            ('container_resource_usage', interval '1 day')) AS t (name, ahead),
            partition_bounds(t.name) AS b WHERE b.lower_bound::timestamptz > now() + t.ahead LOOP
        EXECUTE format('DROP TABLE public.%I', spare);
    END LOOP;
END $$"""
# A server in the test's process must not log to the output that a test reads: structlog would print to the current
# `sys.stdout`. Tracebacks are plain: formatting one with frames and the values of all variables takes longer than
# most calls.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
    logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
)
# No example fails because it took too long: a busy machine may take any time. The other settings stay, including
# those of Hypothesis' CI profile.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
# The production value of `SHARDS`.
_SHARDS = listener_shards.SHARDS


@dataclass(frozen=True, slots=True)
class Database:
    """One database, with a `postgresql://` URL over a Unix socket for each of its roles."""

    name: str
    app_dsn: str
    system_dsn: str
    maintenance_dsn: str
    admin_dsn: str

    @asynccontextmanager
    async def app(self, user_id: int | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Yields a transaction of the app role on behalf of `user_id`, rolled back if the block raises."""
        async with connection(self.app_dsn) as opened, opened.transaction():
            await opened.execute(
                "SELECT set_config('app.current_user_id', $1, true)", "" if user_id is None else str(user_id)
            )
            yield opened

    @asynccontextmanager
    async def system(self) -> AsyncIterator[asyncpg.Connection]:
        """Yields a connection of the system role; each statement is its own transaction."""
        async with connection(self.system_dsn) as opened:
            yield opened

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        """Yields a connection of the maintenance role after SET ROLE to the owner, as migrations and backups use."""
        async with connection(self.maintenance_dsn) as opened:
            await opened.execute(f"SET ROLE {roles.OWNER}")
            yield opened


@asynccontextmanager
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yields an asyncpg connection that is closed at the end of the block."""
    opened = await asyncpg.connect(dsn)
    try:
        yield opened
    finally:
        await opened.close()


async def number_changes(opened: asyncpg.Connection) -> None:
    """Numbers all committed changes. Call it before you read the log or the events with SQL."""
    while (await opened.fetch("SELECT more FROM sequence_changes()"))[-1]["more"]:
        pass


def addresses(server: EmbeddedPostgres, name: str) -> Database:
    """Returns the addresses of the database `name` on `server`."""
    return Database(
        name=name,
        app_dsn=server.dsn(name, roles.APP),
        system_dsn=server.dsn(name, roles.SYSTEM),
        maintenance_dsn=server.dsn(name, roles.MAINTENANCE),
        admin_dsn=server.dsn(name),
    )


@asynccontextmanager
async def new_database(server: EmbeddedPostgres, template: str = "template0") -> AsyncIterator[Database]:
    """Yields a database with a unique name, copied from `template` and dropped at the end of the block.

    Raises AssertionError at the end of the block if transactions in it have deadlocked.
    """
    name = f"test_{next(_numbers)}"
    async with connection(server.dsn()) as admin:
        await _make(admin, name, template)
        try:
            yield addresses(server, name)
            await check_deadlocks(admin, server, name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _make(admin: asyncpg.Connection, name: str, template: str) -> None:
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    # The copy does not include grants on the database itself.
    await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    if template != "template0":
        await admin.execute(f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {name} TO {roles.OWNER}")
        logins = ", ".join(roles.LOGINS.values())
        await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {logins}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Freezes the objects that were loaded for the tests: they live to the end, and can be skipped."""
    gc.disable()
    result = yield
    # `collect_rarely` begins with a collection, which then has nothing to visit.
    gc.freeze()
    collect_rarely()
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, then the folders that start whole servers.

    A worker that starts one of these files last would work alone at the end.
    """
    tests = Path(__file__).parent
    order = {tests / name: number for number, name in enumerate(FIRST)}

    @cache
    def place(path: Path) -> tuple[int, bool, bool]:
        folder = path.parent.name
        return order.get(path, len(FIRST)), folder not in LONG, folder in SHORT

    items.sort(key=lambda item: place(item.path))


@pytest.fixture(scope="session", autouse=True)
def _servers_are_reduced() -> Iterator[None]:
    """Gives servers cheap hashes and few partitions (`tests.reduced`).

    Tests that request `promised_hashes` or `promised_partitions` keep the production values.
    """
    with pytest.MonkeyPatch.context() as patch:
        reduced.reduce(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def _servers_have_few_lines() -> Iterator[None]:
    """Makes servers listen with two listener shards.

    All callers of a test have one address, and each shard adds 1 ms to the start and the stop of a server; the tests
    start a thousand servers. A server in a separate process has the production number, and so have the tests that
    request `promised_lines`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_shards, "SHARDS", 2)
        yield


@pytest.fixture(scope="session", autouse=True)
def _loaded_command_ends() -> Iterator[None]:
    """Ends the process that the tests' commands are forked from, if there is one."""
    yield
    loaded.end()


@pytest.fixture
def promised_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the hashes of this test their production cost; request it before a server fixture."""
    for name, value in reduced.PROMISED_HASHES.items():
        monkeypatch.setattr(passwords, name, value)


@pytest.fixture
def no_finalizers() -> Iterator[None]:
    """Turns garbage collection off for tests that pass a too deeply nested text to a parser; see tests/garbage.py."""
    with without_looks():
        yield


@pytest.fixture(scope="module")
def promised_lines() -> Iterator[None]:
    """Gives the servers of this module the production number of listener shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_shards, "SHARDS", _SHARDS)
        yield


@pytest_asyncio.fixture(loop_scope="session")
async def promised_partitions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the test's database the partitions of a migrated one, and lets servers create as many ahead."""
    monkeypatch.setattr(partitions, "AHEAD", reduced.PROMISED_AHEAD)
    async with database.owner() as owner:
        await owner.execute("""
            SELECT create_monthly_partitions('operation_logs', now()::date, 13),
                   create_daily_partitions('container_resource_usage', now()::date, 15)""")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(
    postgres_directory: Path, start_prepared: Callable[[EmbeddedPostgres, object], Awaitable[None]]
) -> AsyncIterator[EmbeddedPostgres]:
    """Yields a running PostgreSQL server whose data does not survive a crash of the machine."""
    settings = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "4GB", "shared_buffers": "64MB"}
    server = EmbeddedPostgres(postgres_directory / "server", settings=settings)
    await start_prepared(server, _make_template)
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(scope="session")
def start_migrated(start_prepared: Callable[[EmbeddedPostgres, object], Awaitable[None]]) -> StartMigrated:
    """Returns a function that starts a separate PostgreSQL server with a migrated, empty database.

    The database is a copy of the one that all tests share.
    """

    async def start(server: EmbeddedPostgres, name: str) -> None:
        await start_prepared(server, _make_template)
        await _template_of(server)
        async with connection(server.dsn()) as admin:
            await _make(admin, name, TEMPLATE)

    return start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_database(postgres: EmbeddedPostgres) -> Database:
    """Returns the migrated database that `database` is cloned from; nothing connects to it afterwards."""
    template = await _template_of(postgres)
    # PostgreSQL removes a database's cache of the catalogs when it starts. This connection makes PostgreSQL write the
    # cache again, and every clone gets a copy: the first connection to a clone then takes 10 ms less CPU time.
    async with connection(template.admin_dsn):
        return template


async def _template_of(server: EmbeddedPostgres) -> Database:
    """Returns the template, and makes it if the server's files are not a copy of prepared ones."""
    async with connection(server.dsn()) as admin:
        there = await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", TEMPLATE)
    return addresses(server, TEMPLATE) if there else await _make_template(server)


async def _make_template(server: EmbeddedPostgres) -> Database:
    async with connection(server.dsn()) as admin:
        await admin.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    template = addresses(server, TEMPLATE)
    await ensure_roles(template.admin_dsn)
    await runner.upgrade(template.maintenance_dsn)
    async with template.owner() as owner:
        await owner.execute(_DROP_SPARE)
    return template


@pytest_asyncio.fixture(loop_scope="session")
async def database(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[Database]:
    """Yields a migrated, empty database for one test."""
    async with new_database(postgres, template_database.name) as cloned:
        yield cloned


@pytest_asyncio.fixture(loop_scope="session")
async def bare_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """Yields an empty database with the roles prepared and no migration applied."""
    async with new_database(postgres) as created:
        await ensure_roles(created.admin_dsn)
        yield created


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """Yields a whole server with a simulated cluster and a logged-in administrator (see `tests.harness`)."""
    from tests.harness import running_server

    async with running_server(database, tmp_path) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_server(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Yields a server like `server` for all tests of a module; each test must use its own names."""
    from tests.harness import running_server

    async with (
        new_database(postgres, template_database.name) as cloned,
        running_server(cloned, tmp_path_factory.mktemp("server")) as running,
    ):
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apart(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[Database]:
    """Yields a database of two tenants that share nothing, with rows in every table (see `tests.migrations.filling`).

    All tests share the database, so a test must leave it unchanged and leave no connection to it open.
    """
    async with new_database(postgres, template_database.name) as cloned:
        async with cloned.owner() as owner:
            await fill(owner)
            await owner.execute("REFRESH MATERIALIZED VIEW container_summary; ANALYZE containers")
        yield cloned


@pytest_asyncio.fixture(loop_scope="session")
async def tenants(postgres: EmbeddedPostgres, apart: Database) -> AsyncIterator[Database]:
    """Yields a database of the two tenants that a test may change."""
    async with new_database(postgres, apart.name) as cloned:
        yield cloned
