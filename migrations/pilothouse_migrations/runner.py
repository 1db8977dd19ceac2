"""Applies and reverts migrations, with a record of each.

The connection assumes the owner's role and takes an advisory lock, so several servers that start together migrate one
after the other. It polls for that lock: a server that waited inside a statement would hold a snapshot, and another
server's CREATE INDEX CONCURRENTLY would wait for it.

**Locks.** Next to a busy server, a migration deadlocks if it takes a weak lock on a table first and a stronger one
later. So a migration names the tables that it changes (`locks = ("containers", "namespaces")`), and the runner locks
them ACCESS EXCLUSIVE before anything else. Each wait is short (`lock_timeout`), because every later statement on the
table waits behind it, and because PostgreSQL checks for deadlocks only after a second. An attempt that gets no lock is
rolled back and repeated. Each migration is its own transaction, so its locks end before the next one.

**Without a transaction.** A migration with `transactional = False` builds indexes CONCURRENTLY
(`statements.build_index`). It may be run again after a failure.

**Records.** `schema_migrations` stores for each migration its checksum, how long it took, whether it succeeded, and
`serves_from`, the oldest release that may run on the schema. The checksum is computed over the SQL that a migration
sends, rendered offline, and the former texts of its functions. A changed checksum of an applied migration is an error.
`schema_functions` stores the checksum of each function's text and the migration that gave it. A differing text is
pending: `upgrade` applies it, unless a migration of a newer release gave it. `schema` compares both with the checksums
in `checksums.py` at a server's start.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pilothouse_migrations import functions, schema, statements
from pilothouse_migrations.roles import OWNER, SYSTEM, make_engine
from pilothouse_migrations.versions_gate import Asks, check_server_version

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
COMMENT ON TABLE alembic_version IS 'The newest applied migration.';
COMMENT ON COLUMN alembic_version.version_num IS 'Its id; no row: none is applied.';
CREATE TABLE IF NOT EXISTS schema_migrations (
    version varchar(255) NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    checksum varchar(64) NOT NULL,
    execution_time_ms integer,
    success boolean NOT NULL DEFAULT true,
    serves_from varchar(20) NOT NULL,
    CONSTRAINT pk_schema_migrations PRIMARY KEY (version));
COMMENT ON TABLE schema_migrations IS 'Checksum, duration and success of each migration.';
COMMENT ON COLUMN schema_migrations.version IS 'Id of the migration.';
COMMENT ON COLUMN schema_migrations.applied_at IS 'When it was applied, or failed.';
COMMENT ON COLUMN schema_migrations.checksum IS 'SHA-256 of its SQL and of the former texts of its functions.';
COMMENT ON COLUMN schema_migrations.execution_time_ms IS 'How long it took.';
COMMENT ON COLUMN schema_migrations.success IS 'False: it failed and is not applied.';
COMMENT ON COLUMN schema_migrations.serves_from IS 'The oldest release that may run on the schema after it.';
CREATE TABLE IF NOT EXISTS schema_functions (
    name varchar(63) NOT NULL,
    checksum varchar(64) NOT NULL,
    version varchar(255) NOT NULL,
    CONSTRAINT pk_schema_functions PRIMARY KEY (name));
COMMENT ON TABLE schema_functions IS 'The text of each function, as it was applied last.';
COMMENT ON COLUMN schema_functions.name IS 'Name of the function and of its file.';
COMMENT ON COLUMN schema_functions.checksum IS 'SHA-256 of its text.';
COMMENT ON COLUMN schema_functions.version IS 'The migration that gave it this text; an older release leaves it alone.'
"""
_BOOKS = ("alembic_version", "schema_migrations", "schema_functions")
# SQLSTATEs of a statement that lock_timeout ended, or that was chosen to end a deadlock.
_RETRIED = (statements.LOCK_NOT_AVAILABLE, "40P01")
_POLL_SECONDS = 0.2
# The index of a large table takes hours, but does not block other statements.
_CONCURRENT_MILLISECONDS = 6 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration: `applied_at` and `execution_time_ms` are None while it is not applied."""

    version: str
    summary: str
    applied: bool
    success: bool | None
    applied_at: datetime | None
    execution_time_ms: int | None
    checksum: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run's waits.

    In milliseconds: for one lock, and for one statement. In seconds: for all attempts to get a migration's locks, and
    for another server's run.
    """

    lock_timeout_milliseconds: int = 500
    statement_timeout_milliseconds: int = 600_000
    lock_seconds: float = 120.0
    wait_seconds: float = 60.0


class MigrationFailedError(schema.MigrationError):
    """A migration failed.

    The message names it and the applied ones. Its cause is SQLAlchemy's DBAPIError.
    """


def _scripts() -> tuple[Script, ...]:
    """Returns all migrations, oldest first."""
    return _load(functions.SOURCES)


@functools.cache
def _load(sources: functions.Sources) -> tuple[Script, ...]:
    config = Config()
    # Alembic interpolates "%" in options; a folder name may contain one.
    config.set_main_option("script_location", str(functions.FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    places = "\n".join(str(place).replace("%", "%%") for place in sources.versions)
    config.set_main_option("version_locations", places)
    return tuple(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))


def head() -> str:
    """Returns the newest migration of this release."""
    return _scripts()[-1].revision


def revisions() -> list[str]:
    """Returns all migrations of this release, oldest first."""
    return [script.revision for script in _scripts()]


def render(revision: str, *, down: bool = False) -> str:
    """Returns the SQL that one migration sends, without functions' texts.

    Raises KeyError for an unknown revision.
    """
    module = {script.revision: script.module for script in _scripts()}[revision]
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer}
    )
    with Operations.context(context):
        (module.downgrade if down else module.upgrade)()
    return buffer.getvalue()


def locks(revision: str) -> tuple[str, ...] | None:
    """Returns the tables that a migration locks first, or None if it is not a transaction."""
    module = {script.revision: script.module for script in _scripts()}[revision]
    return tuple(getattr(module, "locks", ())) if getattr(module, "transactional", True) else None


def checksum(revision: str) -> str:
    """Returns SHA-256 in hex over a migration's SQL, up and down, and the former texts of its functions."""
    return _checksum(revision, functions.SOURCES)


@functools.cache
def _checksum(revision: str, _sources: functions.Sources) -> str:
    former = (functions.before(name, revision) or "" for name in functions.replaced()[revision])
    parts = (render(revision), render(revision, down=True), *former)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def checksums() -> dict[str, str]:
    """Returns the checksum of each migration, oldest first."""
    return {revision: checksum(revision) for revision in revisions()}


async def upgrade(dsn: str, revision: str = "head", *, limits: Limits = Limits()) -> list[str]:
    """Applies all migrations up to `revision`.

    Returns the applied ones, and the functions that got other texts. `dsn` is the maintenance login's.

    Raises UnsupportedServerError, TooOldError, ChecksumMismatchError, UnknownRevisionError, and MigrationFailedError if
    a statement fails: then that migration is rolled back and recorded as failed, and those before it stay.
    """
    target = head() if revision == "head" else _known(revision)
    async with _prepared(dsn, limits) as connection:
        done = set(await schema.applied(_asked(connection), checksums()))
        ahead = [script for script in _scripts() if script.revision <= target and script.revision not in done]
        moved = await _move(connection, ahead, limits, up=True)
        return [*moved, *(await _apply_pending_functions(connection) if target == head() else ())]


async def downgrade(dsn: str, revision: str, *, limits: Limits = Limits()) -> list[str]:
    """Reverts all migrations after `revision` ("base": all of them); returns the reverted ones.

    Errors as for `upgrade`.
    """
    target = "" if revision == "base" else _known(revision)
    async with _prepared(dsn, limits) as connection:
        done = set(await schema.applied(_asked(connection), checksums()))
        current = await schema.applied_version(_asked(connection))
        if current is not None and current not in done:
            raise schema.UnknownRevisionError(
                f"the database is at migration {current}, which this release does not know: migrate down with the"
                " release that made it first"
            )
        behind = [script for script in _scripts() if script.revision > target and script.revision in done]
        return await _move(connection, behind[::-1], limits, up=False)


def _known(revision: str) -> str:
    if revision not in revisions():
        raise schema.UnknownRevisionError(
            f"this release has no migration {revision}; it has {', '.join(revisions())}"
        )
    return revision


async def status(dsn: str) -> list[MigrationStatus]:
    """Returns all migrations, oldest first.

    Works with the maintenance login and with the system login.
    """
    async with connect(dsn) as connection:
        await schema.take_owner(_asked(connection))
        return await _read_status(connection)


async def pending_functions(dsn: str) -> list[str]:
    """Returns functions whose text differs from this release's, once all migrations are applied."""
    async with connect(dsn) as connection:
        await schema.take_owner(_asked(connection))
        if await schema.applied_version(_asked(connection)) != head():
            return []
        return await schema.pending_functions(_asked(connection), functions.all_at(head()), head())


@asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[AsyncConnection]:
    """Yields a connection without a pool."""
    engine = make_engine(dsn, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _asked(connection: AsyncConnection) -> Asks:
    """Returns the function by which `schema` sends statements on the connection."""

    async def ask(statement: str) -> Sequence[Mapping[str, Any]]:
        answer = await connection.exec_driver_sql(statement)
        return answer.mappings().all() if answer.returns_rows else ()  # type: ignore[return-value]

    return ask


async def _read_status(connection: AsyncConnection) -> list[MigrationStatus]:
    applied = set(await schema.applied(_asked(connection), checksums()))
    records = await schema.records(_asked(connection))
    entries = []
    for script in _scripts():
        record = records.get(script.revision)
        entries.append(
            MigrationStatus(
                version=script.revision,
                summary=script.doc,
                applied=script.revision in applied,
                success=record["success"] if record else None,
                applied_at=record["applied_at"] if record and script.revision in applied else None,
                execution_time_ms=record["execution_time_ms"] if record else None,
                checksum=checksum(script.revision),
            )
        )
    return entries


@asynccontextmanager
async def _prepared(dsn: str, limits: Limits) -> AsyncIterator[AsyncConnection]:
    """Yields a connection of the owner that holds the advisory lock.

    Checks first that the applied migrations are this release's.
    """
    # Rendering installs its own Alembic context, so it must end before a migration runs in another.
    checksums()
    async with connect(dsn) as connection:
        await check_server_version(_asked(connection))
        await connection.exec_driver_sql(f"SET ROLE {OWNER}")
        await _take_turn(connection, limits.wait_seconds)
        await _set_timeouts(
            connection, limits.lock_timeout_milliseconds, limits.statement_timeout_milliseconds
        )
        await _keep_books(connection)
        await schema.check_applied(_asked(connection), checksums())
        await connection.commit()
        yield connection


async def _take_turn(connection: AsyncConnection, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    query = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
    while not await connection.scalar(query, {"name": schema.ADVISORY_LOCK}):
        await connection.commit()
        if time.monotonic() > deadline:
            raise schema.RefusedError(
                f"another server has migrated for longer than {seconds:g} s; run `pilothouse migrate up` again"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _set_timeouts(connection: AsyncConnection, lock: int, statement: int) -> None:
    await connection.exec_driver_sql(f"SET lock_timeout = {lock}")
    await connection.exec_driver_sql(f"SET statement_timeout = {statement}")


async def _keep_books(connection: AsyncConnection) -> None:
    if await connection.scalar(text("SELECT to_regclass('public.schema_migrations') IS NOT NULL")):
        return
    for statement in functions.split(_BOOKKEEPING):
        await connection.exec_driver_sql(statement)
    for table in _BOOKS:
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {table}_system_policy ON {table} FOR SELECT TO {SYSTEM} USING (true)",
            f"GRANT SELECT ON {table} TO {SYSTEM}",
        ):
            await connection.exec_driver_sql(statement)


async def _move(
    connection: AsyncConnection, steps: Sequence[Script], limits: Limits, *, up: bool
) -> list[str]:
    """Applies or reverts the migrations, in this order; returns their ids."""
    moved: list[str] = []
    for script in steps:
        started = time.monotonic()
        try:
            await _step(connection, script, limits, up=up)
        except DBAPIError as error:
            await connection.rollback()
            if up:
                await _record_failure(connection, script, started)
            raise MigrationFailedError(_words(script, error, moved, up=up)) from error
        moved.append(script.revision)
    return moved


def _words(script: Script, error: DBAPIError, moved: Sequence[str], *, up: bool) -> str:
    verb, done = ("applied", "up") if up else ("reverted", "down REVISION")
    kept = "what it built so far stays" if locks(script.revision) is None else "nothing of it was kept"
    before = f"{verb} before it: {', '.join(moved)}" if moved else f"nothing was {verb} before it"
    return (
        f"migration {script.revision} was not {verb}: {str(error.orig).rpartition('>: ')[2]}; {kept}; {before};"
        f" `pilothouse migrate {done}` may be run again"
    )


async def _step(connection: AsyncConnection, script: Script, limits: Limits, *, up: bool) -> None:
    """Runs one migration. Repeats it while its locks are not available."""
    run = functools.partial(_run, script=script, up=up, started=time.monotonic())
    if locks(script.revision) is None:
        await _set_timeouts(connection, 0, _CONCURRENT_MILLISECONDS)
        await connection.commit()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        try:
            await connection.run_sync(run)
        finally:
            await connection.rollback()
            await connection.execution_options(isolation_level="READ COMMITTED")
            await _set_timeouts(
                connection, limits.lock_timeout_milliseconds, limits.statement_timeout_milliseconds
            )
            await connection.commit()
        return
    deadline = time.monotonic() + limits.lock_seconds
    while True:
        try:
            await connection.run_sync(run)
            await connection.commit()
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _RETRIED or time.monotonic() > deadline:
                raise
            await connection.rollback()
        await asyncio.sleep(_POLL_SECONDS)


def _run(connection: Connection, *, script: Script, up: bool, started: float) -> None:
    module, version = script.module, script.revision
    with _operations(connection):
        if tables := locks(version):
            statements.run(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE;")
        (module.upgrade if up else module.downgrade)()
    connection.execute(text("DELETE FROM schema_migrations WHERE version = :version"), {"version": version})
    if up:
        elapsed = round((time.monotonic() - started) * 1000)
        connection.execute(_INSERT, _record(script, elapsed, success=True))
    known = revisions()
    now = version if up else next(iter(known[: known.index(version)][::-1]), None)
    _note_functions(connection, functions.changed_by(version), now)
    connection.execute(text("DELETE FROM alembic_version"))
    if now is not None:
        connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": now})


@contextmanager
def _operations(connection: Connection) -> Iterator[None]:
    with Operations.context(MigrationContext.configure(connection)):
        yield


def _note_functions(connection: Connection, changed: Sequence[str], revision: str | None) -> None:
    """Records the texts of functions as of `revision`; None: no migration is applied."""
    texts = {} if revision is None else functions.all_at(revision)
    connection.execute(text("DELETE FROM schema_functions WHERE name = ANY(:names)"), {"names": [*changed]})
    noted = [(name, *texts[name]) for name in changed if name in texts]
    if noted:
        values = [{"name": name, "checksum": found, "version": version} for name, found, version in noted]
        connection.execute(_INSERT_FUNCTION, values)


async def _apply_pending_functions(connection: AsyncConnection) -> list[str]:
    """Gives functions with differing texts this release's texts; returns their names."""
    pending = await schema.pending_functions(_asked(connection), functions.all_at(head()), head())

    def apply(sync: Connection) -> None:
        with _operations(sync):
            for name in pending:
                statements.run(functions.text_at(name, head()) or "")
        _note_functions(sync, pending, head())

    await connection.run_sync(apply)
    await connection.commit()
    return pending


async def _record_failure(connection: AsyncConnection, script: Script, started: float) -> None:
    elapsed = round((time.monotonic() - started) * 1000)
    await connection.execute(
        text("DELETE FROM schema_migrations WHERE version = :version"), {"version": script.revision}
    )
    await connection.execute(_INSERT, _record(script, elapsed, success=False))
    await connection.commit()


_INSERT = text(
    "INSERT INTO schema_migrations (version, checksum, execution_time_ms, success, serves_from)"
    " VALUES (:version, :checksum, :execution_time_ms, :success, :serves_from)"
)
_INSERT_FUNCTION = text(
    "INSERT INTO schema_functions (name, checksum, version) VALUES (:name, :checksum, :version)"
)


def _record(script: Script, elapsed: int, *, success: bool) -> dict[str, object]:
    return {
        "version": script.revision,
        "checksum": checksum(script.revision),
        "execution_time_ms": elapsed,
        "success": success,
        "serves_from": script.module.serves_from,
    }
