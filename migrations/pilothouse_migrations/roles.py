"""The four database roles, and the rights on the database itself that no migration can give.

Roles belong to a PostgreSQL cluster, not to a database: several databases of one cluster (a test suite's clones,
a staging copy) share them. An administrator creates them with this module before the first migration, because creating
a role with BYPASSRLS needs a right that the maintenance login must not have.

======================== ============================ ===========================================================
role                     is                           may
======================== ============================ ===========================================================
`pilothouse_owner`       NOLOGIN, BYPASSRLS           owns every object; nobody connects as it
`pilothouse_app`         login of request handling    tables under row-level security by the caller's identity
`pilothouse_system`      login of feed, reconciler …  the same tables by its own policies
`pilothouse_maintenance` login of migrations, backup  SET ROLE owner, nothing by itself
======================== ============================ ===========================================================

If the library pg_stat_statements is available, its extension is created in a separate schema (`STATISTICS_SCHEMA`),
which only the owner may use, because it contains statements of all tenants.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    # This import loads the ORM, 7 MB; modules that only use the names do not need it.
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

OWNER: Final = "pilothouse_owner"
APP: Final = "pilothouse_app"
SYSTEM: Final = "pilothouse_system"
MAINTENANCE: Final = "pilothouse_maintenance"
# Short name -> role name of the three roles that connect.
LOGINS: Final[Mapping[str, str]] = {"app": APP, "system": SYSTEM, "maintenance": MAINTENANCE}
# Session defaults of request handling. Servers set them when they connect, but a transaction pooler does not pass them
# on; and a person who logs in by hand should not hold a lock forever either.
SESSION_DEFAULTS: Mapping[str, str] = {
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
}
# Only for the role of requests: the longest wait for a lock.
APP_DEFAULTS: Mapping[str, str] = {"lock_timeout": "20s"}
STATISTICS_SCHEMA = "pilothouse_statistics"


def async_dsn(dsn: str) -> str:
    """Returns `dsn` for SQLAlchemy's asyncpg driver; `postgresql://` and `postgres://` are accepted."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise ValueError("database address must start with postgresql://")
    return f"postgresql+asyncpg://{rest}"


def driver_dsn(dsn: str) -> str:
    """Returns `dsn` for asyncpg itself."""
    return async_dsn(dsn).replace("+asyncpg", "", 1)


def make_engine(dsn: str, **options: Any) -> AsyncEngine:
    """Returns SQLAlchemy's engine.

    asyncpg opens its connections by the DSN, so options of the DSN such as `sslmode` work.
    """
    # Imported here to save memory, as explained above.
    from sqlalchemy.ext.asyncio import create_async_engine

    driver = driver_dsn(dsn)
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(driver), poolclass=NullPool, **options
    )


async def ensure_roles(admin_dsn: str, passwords: Mapping[str, str] | None = None) -> None:
    """Creates those of the four roles that are missing.

    Also prepares the database of `admin_dsn` for migrations. `admin_dsn` connects as a superuser (or a role with
    CREATEROLE and BYPASSRLS) to the product's database. `passwords` maps "app", "system", "maintenance" to a new
    password; other roles keep their passwords. Repeating the call changes nothing. Concurrent calls wait for each
    other.

    Raises ValueError for an unknown key in `passwords`, and SQLAlchemy's DBAPIError if rights are missing.
    """
    unknown = set(passwords or {}) - set(LOGINS)
    if unknown:
        raise ValueError(f"no login role is called {sorted(unknown)}")
    engine = make_engine(admin_dsn, hide_parameters=True)
    try:
        async with engine.begin() as connection:
            # All databases share the roles, but this lock works only within one database. A lost race shows as
            # unique_violation, which the block below treats as "it exists".
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended('pilothouse roles', 0))")
            )
            await _create_missing(connection)
            for short, password in (passwords or {}).items():
                await _set_password(connection, LOGINS[short], password)
            await _prepare_database(connection)
            await _keep_session_locks(connection)
            await _count_statements(connection)
    finally:
        await engine.dispose()


async def _create_missing(connection: AsyncConnection) -> None:
    wanted = {
        OWNER: "NOLOGIN BYPASSRLS NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE",
        APP: "LOGIN NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
        SYSTEM: "LOGIN NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
        # NOINHERIT: the role gets the owner's rights only by SET ROLE, never by accident.
        MAINTENANCE: "LOGIN NOINHERIT NOBYPASSRLS NOSUPERUSER NOCREATEDB NOCREATEROLE",
    }
    for name, attributes in wanted.items():
        await connection.execute(
            text(f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
        CREATE ROLE {name} {attributes};
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$""")
        )
    await connection.execute(
        text(f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_auth_members
                   WHERE roleid = '{OWNER}'::regrole AND member = '{MAINTENANCE}'::regrole) THEN
        GRANT {OWNER} TO {MAINTENANCE};
    END IF;
EXCEPTION WHEN unique_violation THEN NULL;
END $$""")
    )


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = 4096) -> str:
    """Returns the SCRAM-SHA-256 verifier that PostgreSQL stores for `password` (RFC 5803).

    The server receives the verifier instead of the password, so no statement log or statistic can contain the password.
    Raises ValueError unless the password is printable ASCII, for which the normalisation of RFC 4013 is the identity.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise ValueError("a database role's password must be printable ASCII and not empty")
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


async def _set_password(connection: AsyncConnection, role: str, password: str) -> None:
    # ALTER ROLE takes no bind parameters; a verifier contains only base64, `$` and `:`, so it needs no escaping.
    await connection.exec_driver_sql(f"ALTER ROLE {role} PASSWORD '{scram_verifier(password)}'")


async def _prepare_database(connection: AsyncConnection) -> None:
    database = await connection.scalar(text("SELECT quote_ident(current_database())"))
    logins = ", ".join(LOGINS.values())
    for statement in (
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database} TO {OWNER}",
        # Bulk loads are staged in a temporary table: COPY into a table under row-level security is refused.
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {logins}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT CREATE, USAGE ON SCHEMA public TO {OWNER}",
        f"GRANT USAGE ON SCHEMA public TO {logins}",
        *(
            f"ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'"
            for role, defaults in (
                (APP, {**SESSION_DEFAULTS, **APP_DEFAULTS}),
                (SYSTEM, SESSION_DEFAULTS),
            )
            for name, value in defaults.items()
        ),
    ):
        await connection.exec_driver_sql(statement)


async def _keep_session_locks(connection: AsyncConnection) -> None:
    """Reserves advisory locks that outlast a transaction for migrations, if this login may do that.

    Requests need only advisory locks that end with their transaction, which no role can be denied.
    """
    await connection.execute(
        text(f"""
DO $$ DECLARE locking regprocedure; BEGIN
    FOR locking IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND proname IN ('pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_try_advisory_lock',
                        'pg_try_advisory_lock_shared') LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', locking);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {OWNER}, {MAINTENANCE}', locking);
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$""")
    )


async def _count_statements(connection: AsyncConnection) -> None:
    """Sets up pg_stat_statements and lets the owner read all statistics, if this login may do that.

    A managed server may allow neither; then slow statements are not reported, and everything else works.
    """
    await connection.execute(
        text(f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements' AND installed_version IS NULL) THEN
        CREATE SCHEMA IF NOT EXISTS {STATISTICS_SCHEMA};
        CREATE EXTENSION pg_stat_statements SCHEMA {STATISTICS_SCHEMA};
    END IF;
EXCEPTION WHEN insufficient_privilege OR unique_violation OR duplicate_object THEN NULL;
END $$""")
    )
    await connection.execute(
        text(f"""
DO $$ BEGIN
    IF to_regnamespace('{STATISTICS_SCHEMA}') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA {STATISTICS_SCHEMA} TO {OWNER};
    END IF;
    IF NOT pg_has_role('{OWNER}', 'pg_read_all_stats', 'USAGE') THEN
        -- The owner is made NOINHERIT, which PostgreSQL 15 knows of a role as a whole only.
        IF current_setting('server_version_num')::integer >= 160000 THEN
            EXECUTE 'GRANT pg_read_all_stats TO {OWNER} WITH INHERIT TRUE';
        ELSE
            ALTER ROLE {OWNER} INHERIT;
            GRANT pg_read_all_stats TO {OWNER};
        END IF;
    END IF;
EXCEPTION WHEN insufficient_privilege OR unique_violation THEN NULL;
END $$""")
    )
