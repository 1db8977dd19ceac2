"""Database access of a backup and a restore, and the SQL around a restored dump.

Connections are not taken from a pool, because each is used while a dump is written, which may take hours.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
import msgspec

from pilothouse_migrations.roles import OWNER, driver_dsn
from pilothouse_migrations.schema import ADVISORY_LOCK
from pilothouse_server.backup.failures import refused
from pilothouse_server.backup.manifests import BackupManifest
from pilothouse_server.store.errors import CONNECTION_LOST, database_unavailable
from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.values.database_address import tls_problem

_CONNECT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 60.0
_ONE_AT_A_TIME: Final = "pilothouse/backup"
_SERVER: Final = "SELECT current_setting('server_version_num')::integer"
# The target must contain neither our objects nor others, with which a restore would be mixed.
_OBJECTS: Final = """
SELECT count(*) FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
# The root of the newest sealed head; empty if none was sealed.
_AUDIT_HEAD: Final = """coalesce(
           (SELECT pg_catalog.encode(s.root, 'hex') FROM public.audit_seals AS s ORDER BY s.size DESC LIMIT 1), '')"""
_FACTS: Final = """
SELECT current_database() AS database, current_setting('server_version_num')::integer AS server_version_number,
       (SELECT version_num FROM public.alembic_version) AS schema_version,
       h.history_id::text AS history_id, h.revision, h.audit_sequence, {head} AS audit_head,
       pg_database_size(current_database()) AS database_bytes,
       (SELECT sum(pg_table_size(c.oid))::bigint FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm')) AS table_bytes,
       ARRAY(SELECT key_id FROM ({uses} SELECT key_id FROM public.encryption_keys WHERE status = 'active') AS used
             ORDER BY key_id) AS master_key_ids,
       ARRAY(SELECT quote_ident(nspname) FROM pg_namespace
             WHERE nspname <> 'public' AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
             ORDER BY nspname) AS other_schemas,
       pg_export_snapshot() AS snapshot
FROM public.stream_head AS h WHERE h.id = 1
"""


def _facts(sealed: Iterable[EnvelopeTable]) -> str:
    uses = "".join(
        f"SELECT key_id FROM public.{table.table} WHERE key_id IS NOT NULL UNION "  # noqa: S608 - constants of the nouns
        for table in sealed
    )
    return _FACTS.format(head=_AUDIT_HEAD, uses=uses)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the database in the snapshot of a dump; `snapshot` is its name for pg_dump."""

    database: str
    server_version_number: int
    schema_version: str
    history_id: str
    revision: int
    audit_sequence: int
    audit_head: str
    database_bytes: int
    table_bytes: int
    master_key_ids: tuple[str, ...]
    other_schemas: tuple[str, ...]
    snapshot: str


class BackupTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A database that a backup is to be restored into.

    `objects`: the number of objects in its schema public. `owner`: whether the role exists and the login may assume it.
    """

    server_version_number: int
    objects: int
    owner: bool


@asynccontextmanager
async def snapshot(dsn: str, sealed: Iterable[EnvelopeTable]) -> AsyncIterator[Facts]:
    """Yields the facts of a snapshot that lasts until the end of the block. One backup of a database runs at a time.

    `sealed` are all tables with encrypted values.

    Raises:
        Unavailable: the database does not respond.
        FailedPrecondition: another backup of it is running, or it has no Pilothouse schema.
    """
    async with _connected(dsn) as connection:
        await connection.execute(f"SET ROLE {OWNER}")
        await connection.execute("SET idle_in_transaction_session_timeout = 0")
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if not await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", _ONE_AT_A_TIME
        ):
            raise refused("another backup of this database is running: wait for its end", "RUNS_ALREADY")
        try:
            try:
                row = await connection.fetchrow(_facts(sealed))
            except asyncpg.UndefinedTableError:
                row = None
            if row is None:
                raise refused(
                    "the database has no schema of Pilothouse, so there is nothing to back up", "NO_SCHEMA"
                )
            yield msgspec.convert(dict(row), Facts)
        finally:
            # PostgreSQL detects the end of a connection a moment later: until then the next backup would be refused.
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.execute("ROLLBACK")


async def look_at(dsn: str) -> BackupTarget:
    """Reads the contents of the target database of a restore. Raises Unavailable."""
    async with _connected(dsn) as connection:
        return BackupTarget(
            server_version_number=await connection.fetchval(_SERVER),
            objects=await connection.fetchval(_OBJECTS),
            owner=bool(
                await connection.fetchval(
                    "SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = $1", OWNER
                )
            ),
        )


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    try:
        connection = await asyncpg.connect(
            driver_dsn(dsn),
            timeout=_CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            server_settings={"application_name": "pilothouse-backup", "timezone": "UTC"},
        )
    except CONNECTION_LOST as error:
        if problem := tls_problem(error):
            raise refused(problem, "DATABASE_TLS") from None
        raise database_unavailable() from None
    try:
        yield connection
    except asyncpg.InsufficientPrivilegeError:
        raise refused(
            f"this login may not become {OWNER}: use the maintenance login of the database", "NOT_THE_OWNER"
        ) from None
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError, TimeoutError):
        raise database_unavailable() from None
    finally:
        # Its lock ends with it, and no response is needed.
        connection.terminate()


def before_the_dump() -> bytes:
    """Returns the SQL before a dump: one transaction of the owner, in a database that is still empty."""
    return f"""
BEGIN;
SET LOCAL ROLE {OWNER};
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('{ADVISORY_LOCK}', 0));
DO $check$ BEGIN
    IF ({_OBJECTS}) > 0 THEN RAISE EXCEPTION 'the database is not empty any more'; END IF;
END $check$;
""".encode()


def after_the_dump(manifest: BackupManifest) -> bytes:
    """Returns the SQL after a complete dump.

    It compares the head with the manifest's, numbers pending changes, begins a new history, numbers its record too, and
    commits everything.
    """
    numbered = """
DO $number$ BEGIN
    WHILE EXISTS (SELECT FROM public.pending_changes) LOOP
        PERFORM public.number_visible(1000);
    END LOOP;
END $number$;"""
    return f"""
DO $check$ BEGIN
    IF NOT EXISTS (
        SELECT FROM public.stream_head AS h
        JOIN public.alembic_version AS v ON v.version_num = '{_word(manifest.schema_version)}'
        WHERE h.id = 1 AND h.revision = {manifest.revision:d} AND h.audit_sequence = {manifest.audit_sequence:d}
          AND {_AUDIT_HEAD} = '{_word(manifest.audit_head)}'
          AND h.history_id::text = '{_word(manifest.history_id)}') THEN
        RAISE EXCEPTION 'the head of the restored log is not the one that the manifest names';
    END IF;
END $check$;
{numbered}
SELECT public.begin_new_history('a backup was restored', 'the backup of {manifest.created_at:%Y-%m-%dT%H:%M:%SZ}');
{numbered}
COMMIT;
SET ROLE {OWNER};
ANALYZE;
""".encode()


def _word(text: str) -> str:
    """Returns a word of the manifest for use in SQL. Raises FailedPrecondition for one that no release writes."""
    if not re.fullmatch("[0-9A-Za-z-]*", text):
        raise refused("the manifest has a value that no release writes", "DAMAGED")
    return text
