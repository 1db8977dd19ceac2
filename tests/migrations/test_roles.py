"""The four database roles: their attributes, and that creating them again changes nothing."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_migrations import roles
from pilothouse_migrations.roles import STATISTICS_SCHEMA, async_dsn, ensure_roles, scram_verifier
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection, new_database


async def test_the_roles_have_their_attributes(database: Database) -> None:
    async with connection(database.admin_dsn) as admin:
        rows = await admin.fetch(
            """SELECT rolname, rolcanlogin, rolbypassrls, rolsuper, rolcreaterole, rolcreatedb, rolreplication
            FROM pg_roles WHERE rolname LIKE 'pilothouse%'"""
        )
    found = {row[0]: tuple(row)[1:] for row in rows if row[0] in (roles.OWNER, *roles.LOGINS.values())}
    assert found == {
        roles.OWNER: (False, True, False, False, False, False),
        roles.APP: (True, False, False, False, False, False),
        roles.SYSTEM: (True, False, False, False, False, False),
        roles.MAINTENANCE: (True, False, False, False, False, False),
    }


@pytest.mark.parametrize("login", ["app_dsn", "system_dsn"])
async def test_request_handling_cannot_become_the_owner(database: Database, login: str) -> None:
    async with connection(getattr(database, login)) as opened:
        for role in (roles.OWNER, roles.MAINTENANCE, "postgres"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await opened.execute(f"SET ROLE {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await opened.execute("CREATE TABLE public.own ()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await opened.execute("SET row_security = off; SELECT * FROM containers")


async def test_maintenance_has_the_owners_rights_by_set_role_only(database: Database) -> None:
    async with connection(database.maintenance_dsn) as maintenance:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await maintenance.fetch("SELECT * FROM users")
        await maintenance.execute(f"SET ROLE {roles.OWNER}")
        assert await maintenance.fetch("SELECT * FROM users") == []


async def test_creating_the_roles_again_changes_nothing(bare_database: Database) -> None:
    async with connection(bare_database.admin_dsn) as admin:
        await ensure_roles(bare_database.admin_dsn, {"app": "first"})
        query = """SELECT rolname, rolpassword, datacl, nspacl FROM pg_authid, pg_database, pg_namespace
            WHERE rolname LIKE 'pilothouse%' AND datname = current_database() AND nspname = 'public' ORDER BY 1"""
        before = await admin.fetch(query)
        await ensure_roles(bare_database.admin_dsn)
        assert await admin.fetch(query) == before
        await admin.execute(f"ALTER ROLE {roles.APP} PASSWORD NULL")


@pytest_asyncio.fixture(loop_scope="session")
async def without_roles(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Yields the test's own PostgreSQL server, which has none of the roles."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_roles_can_be_created_concurrently(without_roles: EmbeddedPostgres) -> None:
    async with new_database(without_roles) as first, new_database(without_roles) as second:
        await asyncio.gather(*(ensure_roles(dsn) for dsn in [first.admin_dsn, second.admin_dsn] * 2))
        async with connection(without_roles.dsn()) as admin:
            found = await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'pilothouse%'")
            assert {row[0] for row in found} == {roles.OWNER, *roles.LOGINS.values()}


async def test_only_the_owner_can_read_statement_statistics(database: Database) -> None:
    count = (
        f"SELECT count(*) FROM {STATISTICS_SCHEMA}.pg_stat_statements WHERE query NOT LIKE '<insufficient%'"
    )
    async with database.owner() as owner:
        assert await owner.fetchval(count) > 0
        # The owner also reads statements of other roles.
        users = f"SELECT count(DISTINCT userid) FROM {STATISTICS_SCHEMA}.pg_stat_statements WHERE query <> ''"
        assert await owner.fetchval(users) > 1
    for login in (database.app_dsn, database.system_dsn, database.maintenance_dsn):
        async with connection(login) as opened:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await opened.fetchval(count)


async def test_roles_are_created_if_the_login_cannot_set_up_statistics(
    without_roles: EmbeddedPostgres,
) -> None:
    async with new_database(without_roles) as made, connection(without_roles.dsn()) as admin:
        if await admin.fetchval("SELECT current_setting('server_version_num')::integer") < 160000:
            pytest.skip("before PostgreSQL 16 a role with BYPASSRLS is made by a superuser only")
        await admin.execute("CREATE ROLE lesser LOGIN CREATEROLE BYPASSRLS")
        await admin.execute(f"ALTER DATABASE {made.name} OWNER TO lesser")
        await ensure_roles(without_roles.dsn(made.name, "lesser"))
        async with connection(made.admin_dsn) as opened:
            found = await opened.fetchval("SELECT count(*) FROM pg_extension WHERE extname LIKE 'pg_stat%'")
            assert found == 0


async def test_the_verifier_is_the_one_postgresql_computes(postgres: EmbeddedPostgres) -> None:
    async with connection(postgres.dsn()) as admin:
        await admin.execute("CREATE ROLE verifier PASSWORD 'correct horse $: battery'")
        stored = await admin.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'verifier'")
        await admin.execute("DROP ROLE verifier")
    iterations, salt = stored.split("$")[1].split(":")
    assert stored == scram_verifier(
        "correct horse $: battery", salt=base64.b64decode(salt), iterations=int(iterations)
    )
    assert scram_verifier("secret") != scram_verifier("secret")


@pytest.mark.parametrize("password", ["", "naïve", "line\nbreak"])
def test_passwords_that_need_normalisation_are_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        scram_verifier(password)


async def test_unknown_logins_are_refused(bare_database: Database) -> None:
    with pytest.raises(ValueError, match="owner"):
        await ensure_roles(bare_database.admin_dsn, {"owner": "x"})


def test_addresses_of_other_databases_are_refused() -> None:
    assert async_dsn("postgres://u@h/d") == "postgresql+asyncpg://u@h/d"
    for address in ("mysql://u@h/d", "localhost"):
        with pytest.raises(ValueError, match="postgresql://"):
            async_dsn(address)
