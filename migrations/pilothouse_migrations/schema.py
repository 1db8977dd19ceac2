"""Checks whether a database's schema is this release's, at each start of a server, with asyncpg alone.

Alembic and its imports take 10 MB and half a second; SQLAlchemy's asynchronous engine, which loads its ORM, takes 7 MB
more. `runner` renders the SQL of a migration; its checksum is stored in `checksums.py`, and a lint step compares the
two.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from pilothouse_migrations.checksums import CHECKSUMS, FUNCTIONS
from pilothouse_migrations.roles import OWNER, driver_dsn
from pilothouse_migrations.versions_gate import Asks, check_server_version

# Ids of migrations below this one belong to databases that were made before release 0.2.0.
FIRST_ID: Final = "0100"
# Only one migrator at a time changes a schema.
ADVISORY_LOCK = "pilothouse migrations"
_CONNECT_SECONDS = 60.0


class MigrationError(Exception):
    """Base class of the errors below; the message names the next step."""


class ChecksumMismatchError(MigrationError):
    """An applied migration differs from the one in this release. Install the release that applied it."""


class UnknownRevisionError(MigrationError):
    """The database was migrated by a newer release that this one cannot serve.

    Install that release, or migrate down with it first.
    """


class TooOldError(MigrationError):
    """The database was made before release 0.2.0.

    Create a new one, or install the release that made it.
    """


class RefusedError(MigrationError):
    """The database refuses the connection, or returns an error."""


class PendingMigrationsError(MigrationError):
    """The database is older than this release. Run `pilothouse migrate up`."""


async def check(dsn: str) -> None:
    """Raises unless the server is supported and its schema is exactly this release's.

    A server that must not migrate by itself calls this at its start. Raises UnsupportedServerError, TooOldError,
    ChecksumMismatchError, UnknownRevisionError, PendingMigrationsError.
    """
    pending = await pending_migrations(dsn)
    if pending:
        raise PendingMigrationsError(f"not applied: {', '.join(pending)}; run `pilothouse migrate up`")


async def pending_migrations(dsn: str) -> list[str]:
    """Returns migrations that are not applied, oldest first, or functions with differing texts.

    Otherwise raises as `check`.
    """
    async with _asked(dsn) as database:
        await check_server_version(database)
        await take_owner(database)
        await check_applied(database, CHECKSUMS)
        done = await applied(database, CHECKSUMS)
        if len(done) < len(CHECKSUMS):
            return list(CHECKSUMS)[len(done) :]
        return await pending_functions(database, FUNCTIONS, list(CHECKSUMS)[-1])


async def pending_functions(database: Asks, wanted: Mapping[str, tuple[str, str]], newest: str) -> list[str]:
    """Returns the functions whose text is not this release's.

    `wanted` has the checksum and the migration of each function. A function whose text a migration after `newest` gave
    belongs to a newer release, which may also have dropped functions.
    """
    found = {
        row["name"]: row for row in await database("SELECT name, checksum, version FROM schema_functions")
    }
    is_newest = (await applied_version(database)) == newest
    return [
        name
        for name, (checksum, _) in wanted.items()
        if (is_newest if name not in found else found[name]["checksum"] != checksum)
        and (name not in found or found[name]["version"] <= newest)
    ]


@asynccontextmanager
async def _asked(dsn: str) -> AsyncIterator[Asks]:
    """Yields a function that sends statements on a new connection.

    Raises RefusedError, or OSError if the server does not respond.
    """
    try:
        connection = await asyncpg.connect(driver_dsn(dsn), timeout=_CONNECT_SECONDS)
        try:
            yield connection.fetch
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RefusedError(f"the database refused: {error}") from None


async def take_owner(database: Asks) -> None:
    """Assumes the owner's role if the login may.

    The system login stays itself and can read the record.
    """
    if (await database(f"SELECT pg_has_role('{OWNER}', 'MEMBER') AS may"))[0]["may"]:
        await database(f"SET ROLE {OWNER}")


async def applied(database: Asks, checksums: Mapping[str, str]) -> list[str]:
    """Returns the migrations that Alembic records as applied, oldest first.

    `checksums` are the release's, in that order.

    Raises TooOldError and UnknownRevisionError.
    """
    current = await applied_version(database)
    known = list(checksums)
    if current is not None and current < FIRST_ID:
        raise TooOldError(
            f"the database was made before release 0.2.0 (it is at migration {current}) and cannot be upgraded: create"
            " an empty database for this release, or run the release that made it"
        )
    if current is not None and current not in known:
        await _check_served(database, current, known[-1])
        return known
    return [] if current is None else known[: known.index(current) + 1]


async def applied_version(database: Asks) -> str | None:
    """Returns the newest applied migration, or None."""
    if not await _has(database, "alembic_version"):
        return None
    found = await database("SELECT version_num FROM alembic_version")
    return found[0]["version_num"] if found else None


async def _check_served(database: Asks, current: str, newest: str) -> None:
    """Raises UnknownRevisionError unless this release may serve the schema of a newer release."""
    rows = [row for version, row in (await records(database)).items() if row["success"] and version > newest]
    oldest = max((row["serves_from"] for row in rows), key=_release, default="")
    if not rows or current < newest or _release(oldest) > _release(importlib.metadata.version("pilothouse")):
        needs = f"; it serves releases from {oldest} on" if oldest else ""
        raise UnknownRevisionError(
            f"the database is at migration {current}, which this release does not know (its newest is {newest}){needs}"
        )


def _release(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("."))


async def records(database: Asks) -> dict[str, Mapping[str, Any]]:
    """Returns the rows of `schema_migrations` by version."""
    if not await _has(database, "schema_migrations"):
        return {}
    rows = await database(
        "SELECT version, applied_at, checksum, execution_time_ms, success, serves_from FROM schema_migrations"
    )
    return {row["version"]: row for row in rows}


async def _has(database: Asks, table: str) -> bool:
    found = await database(f"SELECT to_regclass('public.{table}') IS NOT NULL AS found")
    return bool(found[0]["found"])


async def check_applied(database: Asks, checksums: Mapping[str, str]) -> None:
    """Raises ChecksumMismatchError unless the applied migrations are this release's, and the errors of `applied`."""
    done = await applied(database, checksums)
    found_records = await records(database) if done else {}
    for version in done:
        record = found_records.get(version)
        if record is None or record["checksum"] != checksums[version]:
            found = "no record of it" if record is None else f"checksum {record['checksum'][:12]}"
            raise ChecksumMismatchError(
                f"migration {version} was applied in another form: the database has {found}, this release has "
                f"checksum {checksums[version][:12]}; never edit an applied migration, add a new one"
            )
