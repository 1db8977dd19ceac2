"""Applying and reverting migrations, with a record of what was applied.

Each migration is one transaction. Before the first, the connection takes the owner's role, time limits (a migration
that waits long for a lock makes every later statement wait behind it) and an advisory lock, so that several servers
that start together migrate one after the other.

Beside Alembic's own table, `schema_migrations` keeps for each migration its checksum, how long it took and whether
it succeeded. The checksum is taken over the SQL a migration sends, rendered offline: a
comment or a reformatted module changes nothing, a changed statement does. A changed checksum of an applied
migration is an error at start, because the schema is then not what the code believes. `schema` checks that by the
checksums that are written down in `checksums.py`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pilothouse_migrations import schema
from pilothouse_migrations.roles import OWNER, SYSTEM, make_engine
from pilothouse_migrations.versions_gate import Asks, check_server_version

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
COMMENT ON TABLE alembic_version IS 'The newest applied migration.';
CREATE TABLE IF NOT EXISTS schema_migrations (
    version varchar(255) NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    checksum varchar(64) NOT NULL,
    execution_time_ms integer,
    success boolean NOT NULL DEFAULT true,
    CONSTRAINT pk_schema_migrations PRIMARY KEY (version));
COMMENT ON TABLE schema_migrations IS 'Checksum, duration and success of each migration.'
"""


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


def _config() -> Config:
    config = Config()
    # Alembic interpolates "%" in options; a folder name may contain one.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@functools.cache
def _scripts() -> tuple[Script, ...]:
    """All migrations, oldest first."""
    directory = ScriptDirectory.from_config(_config())
    return tuple(reversed(list(directory.walk_revisions())))


def head() -> str:
    """The newest migration of this release."""
    return _scripts()[-1].revision


def revisions() -> list[str]:
    """All migrations of this release, oldest first."""
    return [script.revision for script in _scripts()]


def render(revision: str, *, down: bool = False) -> str:
    """The SQL that one migration sends. Raises KeyError for an unknown revision."""
    module = {script.revision: script.module for script in _scripts()}[revision]
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer}
    )
    with Operations.context(context):
        (module.downgrade if down else module.upgrade)()
    return buffer.getvalue()


@functools.cache
def checksum(revision: str) -> str:
    """SHA-256 in hex over the SQL of a migration, up and down."""
    return hashlib.sha256((render(revision) + "\0" + render(revision, down=True)).encode()).hexdigest()


def checksums() -> dict[str, str]:
    """The checksum of each migration, oldest first."""
    return {revision: checksum(revision) for revision in revisions()}


async def upgrade(dsn: str, revision: str = "head", **options: Any) -> list[str]:
    """Apply all migrations up to `revision`; returns those that were applied.

    `dsn` is the maintenance login's. Options: `lock_timeout_milliseconds` (5,000) and
    `statement_timeout_milliseconds` (600,000) for each migration; `wait_seconds` (60) for another server's.

    Raises UnsupportedServerError, TooOldError, ChecksumMismatchError, UnknownRevisionError, and SQLAlchemy's DBAPIError
    if a statement fails: then that migration is rolled back and recorded as failed, and those before it stay.
    """
    return await _move(dsn, lambda config: command.upgrade(config, revision), options)


async def downgrade(dsn: str, revision: str, **options: Any) -> list[str]:
    """Revert all migrations after `revision` ("base": all of them); returns those that were reverted.

    Options and errors as for `upgrade`.
    """
    return await _move(dsn, lambda config: command.downgrade(config, revision), options)


async def status(dsn: str) -> list[MigrationStatus]:
    """What is applied, oldest first. Works as the maintenance login and as the system login."""
    async with connect(dsn) as connection:
        await schema.take_owner(_asked(connection))
        return await _read_status(connection)


@asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[AsyncConnection]:
    """A connection without a pool."""
    engine = make_engine(dsn, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _asked(connection: AsyncConnection) -> Asks:
    """The connection as `schema` asks it."""

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


async def _move(dsn: str, run_command: Callable[[Config], None], options: dict[str, Any]) -> list[str]:
    lock_timeout = int(options.pop("lock_timeout_milliseconds", 5_000))
    statement_timeout = int(options.pop("statement_timeout_milliseconds", 600_000))
    wait_seconds = float(options.pop("wait_seconds", 60.0))
    if options:
        raise TypeError(f"unknown options: {', '.join(sorted(options))}")
    # Rendering installs an Alembic context of its own, so it must be over before a migration runs in another.
    checksums()
    async with connect(dsn) as connection:
        await check_server_version(_asked(connection))
        await connection.exec_driver_sql(f"SET ROLE {OWNER}")
        await connection.exec_driver_sql(f"SET lock_timeout = {int(wait_seconds * 1000)}")
        await connection.execute(
            text("SELECT pg_advisory_lock(hashtextextended(:name, 0))"), {"name": schema.ADVISORY_LOCK}
        )
        await connection.exec_driver_sql(f"SET lock_timeout = {lock_timeout}")
        await connection.exec_driver_sql(f"SET statement_timeout = {statement_timeout}")
        await _keep_books(connection)
        await schema.check_applied(_asked(connection), checksums())
        # Alembic opens a transaction for each migration only if none is open when it begins.
        await connection.commit()
        recorder = _Recorder()
        try:
            await connection.run_sync(recorder.run, run_command)
        except DBAPIError:
            await connection.rollback()
            await recorder.record_failure(connection)
            raise
        await connection.commit()
        return recorder.moved


async def _keep_books(connection: AsyncConnection) -> None:
    if await connection.scalar(text("SELECT to_regclass('public.schema_migrations') IS NOT NULL")):
        return
    for statement in _BOOKKEEPING.split(";\n"):
        await connection.exec_driver_sql(statement)
    for table in ("alembic_version", "schema_migrations"):
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {table}_system_policy ON {table} FOR SELECT TO {SYSTEM} USING (true)",
            f"GRANT SELECT ON {table} TO {SYSTEM}",
        ):
            await connection.exec_driver_sql(statement)


class _Recorder:
    """Writes `schema_migrations` within each migration's transaction, and measures its time."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self._upgrading = True
        self._started = 0.0

    def run(self, connection: Connection, run_command: Callable[[Config], None]) -> None:
        config = _config()
        config.attributes.update(connection=connection, on_version_apply=self._applied)
        self._started = time.monotonic()
        run_command(config)

    def _applied(self, *, ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
        version = str(step.up_revision_id)
        elapsed = self._elapsed_milliseconds()
        connection = ctx.connection
        assert connection is not None
        connection.execute(
            text("DELETE FROM schema_migrations WHERE version = :version"), {"version": version}
        )
        if step.is_upgrade:
            connection.execute(_INSERT, _record(version, elapsed, success=True))
        self._upgrading = step.is_upgrade
        self.moved.append(version)
        self._started = time.monotonic()

    def _elapsed_milliseconds(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    async def record_failure(self, connection: AsyncConnection) -> None:
        """Record the migration that failed: the first that is not applied. A failed revert leaves its record."""
        elapsed = self._elapsed_milliseconds()
        applied = await schema.applied(_asked(connection), checksums())
        pending = revisions()[len(applied) :]
        if not self._upgrading or not pending:
            return
        await connection.execute(
            text("DELETE FROM schema_migrations WHERE version = :version"), {"version": pending[0]}
        )
        await connection.execute(_INSERT, _record(pending[0], elapsed, success=False))
        await connection.commit()


_INSERT = text(
    "INSERT INTO schema_migrations (version, checksum, execution_time_ms, success)"
    " VALUES (:version, :checksum, :execution_time_ms, :success)"
)


def _record(version: str, elapsed: int, *, success: bool) -> dict[str, object]:
    return {
        "version": version,
        "checksum": checksum(version),
        "execution_time_ms": elapsed,
        "success": success,
    }
