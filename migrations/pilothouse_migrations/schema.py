"""Whether a database's schema is this release's, asked without Alembic: a server does it at each start.

Alembic and what it imports take 10 MB and half a second. What a migration would send is rendered by `runner`; its
checksum is written down in `checksums.py`, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from pilothouse_migrations.checksums import CHECKSUMS
from pilothouse_migrations.roles import DEFAULT_PREFIX, RoleNames, async_dsn
from pilothouse_migrations.versions_gate import check_server_version


class MigrationError(Exception):
    """Root of the errors below; the message says what to do."""


class ChecksumMismatchError(MigrationError):
    """An applied migration differs from the one in this release. Install the release it was applied with."""


class UnknownRevisionError(MigrationError):
    """The database was migrated by a newer release. Install that release, or migrate down with it first."""


class PendingMigrationsError(MigrationError):
    """The database is older than this release. Run `pilothouse migrate up`."""


async def check(dsn: str, *, prefix: str = DEFAULT_PREFIX) -> None:
    """Raise unless the server is supported and its schema is exactly this release's.

    What a server calls at start when it is not to migrate by itself. Raises UnsupportedServerError,
    ChecksumMismatchError, UnknownRevisionError, PendingMigrationsError.
    """
    pending = await pending_migrations(dsn, prefix=prefix)
    if pending:
        raise PendingMigrationsError(
            f"migrations {', '.join(pending)} are not applied; run `pilothouse migrate up`"
        )


async def pending_migrations(dsn: str, *, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """The migrations that are still to be applied, oldest first. Raises as `check`, but for those."""
    async with connect(dsn) as connection:
        await check_server_version(connection)
        await take_owner(connection, prefix)
        await check_applied(connection, CHECKSUMS)
        done = await applied(connection, CHECKSUMS)
    return list(CHECKSUMS)[len(done) :]


@asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[AsyncConnection]:
    """A connection without a pool."""
    engine = create_async_engine(async_dsn(dsn), poolclass=NullPool, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def take_owner(connection: AsyncConnection, prefix: str) -> None:
    """Become the owner where the login may; the system login stays itself and can read the record."""
    owner = RoleNames(prefix).owner
    may = await connection.scalar(text("SELECT pg_has_role(:owner, 'MEMBER')"), {"owner": owner})
    if may:
        await connection.exec_driver_sql(f"SET ROLE {owner}")


async def applied(connection: AsyncConnection, checksums: Mapping[str, str]) -> list[str]:
    """Versions that Alembic holds for applied, oldest first; `checksums` are the release's, in that order.

    Raises UnknownRevisionError.
    """
    if await connection.scalar(text("SELECT to_regclass('public.alembic_version') IS NULL")):
        return []
    current = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    known = list(checksums)
    if current is not None and current not in known:
        raise UnknownRevisionError(
            f"the database is at migration {current}, which this release does not know (its newest is {known[-1]})"
        )
    return [] if current is None else known[: known.index(current) + 1]


async def records(connection: AsyncConnection) -> dict[str, Any]:
    """The rows of `schema_migrations` by version."""
    if await connection.scalar(text("SELECT to_regclass('public.schema_migrations') IS NULL")):
        return {}
    rows = await connection.execute(
        text("SELECT version, applied_at, checksum, execution_time_ms, success FROM schema_migrations")
    )
    return {row.version: row for row in rows}


async def check_applied(connection: AsyncConnection, checksums: Mapping[str, str]) -> None:
    """Raises ChecksumMismatchError unless what is applied is what the release has, and UnknownRevisionError."""
    found_records = await records(connection)
    for version in await applied(connection, checksums):
        record = found_records.get(version)
        if record is None or record.checksum != checksums[version]:
            found = "no record of it" if record is None else f"checksum {record.checksum[:12]}"
            raise ChecksumMismatchError(
                f"migration {version} was applied in another form: the database has {found}, this release has "
                f"checksum {checksums[version][:12]}; never edit an applied migration, add a new one"
            )
