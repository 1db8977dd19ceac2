"""The operations of migrations: running SQL text, functions by their files, and indexes next to a busy server.

The text is PostgreSQL's own language, with the role names of `roles` written out: readers and linters see the same text
as the database. The driver prepares each statement and accepts one at a time, so `run` splits a text.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pilothouse_migrations import functions

# How long one attempt to lock an index may block the queries that use it, and the number of attempts.
_ATTACH_MILLISECONDS = 500
_ATTACH_ATTEMPTS = 60
LOCK_NOT_AVAILABLE = "55P03"
# PostgreSQL truncates longer names.
_NAME_CHARACTERS = 63


def run(sql: str) -> None:
    """Executes each statement of `sql` in the current migration."""
    for statement in functions.split(sql):
        _execute(statement)


def run_file(name: str) -> None:
    """Executes a file of this package, such as `baseline/users.sql`.

    Its statements are sent together, as one block of PL/pgSQL: sent singly, each would be prepared first, and the
    baseline has 1,156. A query is sent alone.
    """
    sql = (functions.FOLDER / name).read_text("utf-8")
    # Offline, a migration's SQL is rendered as it is written.
    if op.get_context().as_sql:
        run(sql)
        return
    for query, block in groupby(functions.split(sql), key=lambda statement: statement.startswith("SELECT")):
        if query:
            for statement in block:
                _execute(statement)
        else:
            together = ";\n".join(block)
            _execute(f"DO $file$ BEGIN\n{together};\nEND $file$")


def _execute(statement: str) -> None:
    # A colon would start a bind parameter; PostgreSQL's own colons must pass through unchanged.
    op.execute(text(statement.replace(":", r"\:")))


def create_functions(revision: str, first: tuple[str, ...] = ()) -> None:
    """Creates every function in its text as of `revision`, those of `first` before the others."""
    for name in dict.fromkeys((*first, *functions.names())):
        _put(name, functions.text_at(name, revision), create_only=True)


def drop_functions(revision: str) -> None:
    """Drops every function that exists once `revision` is applied.

    One statement drops them all, so their order does not matter.
    """
    if not op.get_context().as_sql:
        run(f"DROP FUNCTION IF EXISTS {', '.join(functions.all_at(revision))};")


def replace_functions(revision: str) -> None:
    """Gives the functions that migration `revision` names their new texts.

    Drops those without a file.
    """
    for name in functions.replaced()[revision]:
        _put(name, functions.text_at(name, revision))


def restore_functions(revision: str) -> None:
    """Gives the functions that migration `revision` names their former texts.

    Drops those that it created.
    """
    for name in functions.replaced()[revision][::-1]:
        _put(name, functions.before(name, revision))


def _put(name: str, sql: str | None, *, create_only: bool = False) -> None:
    # Offline, only a migration's own SQL is rendered: functions have their own checksums.
    if op.get_context().as_sql:
        return
    if sql is not None:
        run(sql)
    elif not create_only:
        run(f"DROP FUNCTION IF EXISTS {name};")


def build_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Builds an index without blocking writers, in a migration with `transactional = False`.

    `definition` follows the table's name: "(name, id) INCLUDE (namespace_id)". An invalid index that an interrupted run
    left is dropped first, and partitions that have theirs are skipped, so the call may be repeated. An index of a
    partitioned table is created on the parent only, then on each partition, and attached.
    """
    create = "CREATE UNIQUE INDEX" if unique else "CREATE INDEX"
    if op.get_context().as_sql:
        run(f"{create} CONCURRENTLY {name} ON {table} {definition};")
    elif _scalar("SELECT relkind::text FROM pg_class WHERE oid = to_regclass(:name)", table) == "p":
        run(f"{create} IF NOT EXISTS {name} ON ONLY {table} {definition};")
        for partition in _without_index(name, table):
            own = f"{partition}_{name}"[:_NAME_CHARACTERS]
            _build_one(create, own, partition, definition)
            _patiently(f"ALTER INDEX {name} ATTACH PARTITION {own}")
    else:
        _build_one(create, name, table, definition)


def drop_index(name: str) -> None:
    """Drops an index that `build_index` built, in a migration with `transactional = False`."""
    if op.get_context().as_sql:
        run(f"DROP INDEX CONCURRENTLY {name};")
    elif _scalar("SELECT relkind::text FROM pg_class WHERE oid = to_regclass(:name)", name) == "I":
        # CONCURRENTLY is not supported for the index of a partitioned table.
        _patiently(f"DROP INDEX IF EXISTS {name}")
    else:
        run(f"DROP INDEX CONCURRENTLY IF EXISTS {name};")


def _build_one(create: str, name: str, table: str, definition: str) -> None:
    valid = _scalar("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)", name)
    if valid is False:
        run(f"DROP INDEX CONCURRENTLY {name};")
    if not valid:
        run(f"{create} CONCURRENTLY {name} ON {table} {definition};")


def _without_index(name: str, table: str) -> list[str]:
    """Returns partitions without an attached index.

    A partition created during the build gets the index from its parent.
    """
    found = op.get_bind().execute(
        text(
            "SELECT p.inhrelid::regclass::text FROM pg_inherits AS p WHERE p.inhparent = to_regclass(:table)"
            " AND NOT EXISTS (SELECT FROM pg_inherits AS i JOIN pg_index AS x ON x.indexrelid = i.inhrelid"
            " WHERE i.inhparent = to_regclass(:name) AND x.indrelid = p.inhrelid) ORDER BY 1"
        ),
        {"table": table, "name": name},
    )
    return [row[0] for row in found]


def _patiently(statement: str) -> None:
    """Executes a statement that locks an index exclusively, in short attempts: queries wait behind each."""
    for attempt in range(_ATTACH_ATTEMPTS):
        run(f"SET lock_timeout = {_ATTACH_MILLISECONDS};")
        try:
            run(f"{statement};")
            return
        except DBAPIError as error:
            refused = getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
            if not refused or attempt == _ATTACH_ATTEMPTS - 1:
                raise
        finally:
            run("SET lock_timeout = 0;")
        run("SELECT pg_sleep(0.2);")


def _scalar(query: str, name: str) -> Any:
    return op.get_bind().execute(text(query), {"name": name}).scalar()
