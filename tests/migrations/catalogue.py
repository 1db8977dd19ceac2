"""A database's schema, as a comparable value read from PostgreSQL's catalogue.

Two schemas are equal if their snapshots are. A snapshot contains columns, constraints, indexes, policies, functions,
views, comments, owners and rights, each as one line of text, so that a difference is readable. It leaves out
partitions, because they depend on the day.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import asyncpg

_QUERIES = (
    """
    SELECT format('column %s.%s %s %s default %s identity %s', c.relname, a.attname,
                  format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END,
                  pg_get_expr(d.adbin, d.adrelid), a.attidentity)
    FROM pg_attribute a JOIN relation c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm')
    """,
    """
    SELECT format('relation %s kind %s owner %s security %s forced %s options %s', c.relname, c.relkind,
                  c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity, c.reloptions)
    FROM relation c
    """,
    """
    SELECT format('constraint %s on %s: %s', k.conname, c.relname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN relation c ON c.oid = k.conrelid WHERE k.contype <> 'n'
    """,
    """
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN relation c ON c.oid = i.indrelid
    """,
    """
    SELECT format('policy %s on %s for %s to %s using %s check %s', policyname, tablename, cmd, roles, qual, with_check)
    FROM pg_policies WHERE schemaname = 'public'
    """,
    """
    SELECT format('function %s returns %s %s %s %s: %s', p.oid::regprocedure, pg_get_function_result(p.oid),
                  p.provolatile, p.prosecdef, p.proconfig, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc))
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
    """,
    """
    SELECT format('view %s: %s', c.relname, pg_get_viewdef(c.oid)) FROM relation c WHERE c.relkind IN ('v', 'm')
    """,
    """
    SELECT format('right on %s for %s: %s', c.relname, x.grantee::regrole, x.privilege_type)
    FROM relation c CROSS JOIN aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
    WHERE c.relkind IN ('r', 'p', 'v', 'm')
    """,
    """
    SELECT format('right on column %s.%s for %s: %s', c.relname, a.attname, x.grantee::regrole, x.privilege_type)
    FROM pg_attribute a JOIN relation c ON c.oid = a.attrelid CROSS JOIN aclexplode(a.attacl) x
    WHERE NOT a.attisdropped
    """,
    """
    SELECT format('right on function %s for %s', p.oid::regprocedure, x.grantee::regrole)
    FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
    WHERE p.pronamespace = 'public'::regnamespace
    """,
    """
    SELECT format('comment on %s.%s: %s', d.objoid::regclass, d.objsubid, d.description)
    FROM pg_description d JOIN relation c ON c.oid = d.objoid WHERE d.classoid = 'pg_class'::regclass
    """,
    """
    SELECT format('default right %s %s', d.defaclobjtype, d.defaclacl) FROM pg_default_acl d
    """,
)
_RELATION = """
    WITH relation AS (
        SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace AND NOT relispartition
          AND relname NOT IN ('schema_migrations', 'schema_functions', 'alembic_version'))
"""


async def snapshot(connection: asyncpg.Connection) -> set[str]:
    """Returns the schema `public` with one line for each object, without the bookkeeping of migrations."""
    lines: set[str] = set()
    for query in _QUERIES:
        lines.update(row[0] for row in await connection.fetch(_RELATION + query))
    books = ("schema_migrations", "schema_functions", "alembic_version")
    return {line for line in lines if not any(table in line for table in books)}


async def tables(connection: asyncpg.Connection) -> list[str]:
    """Returns every table of the schema, by name, without partitions and the bookkeeping of migrations."""
    rows = await connection.fetch(
        _RELATION + "SELECT relname FROM relation WHERE relkind IN ('r', 'p') ORDER BY relname"
    )
    return [row[0] for row in rows]


async def contents(connection: asyncpg.Connection) -> dict[str, list[dict[str, Any]]]:
    """Returns the sorted rows of each table, without the row versions, because a migration may write a row."""
    found = {}
    for table in await tables(connection):
        rows = await connection.fetch(f"SELECT (to_jsonb(t) - 'row_version')::text FROM {table} t")
        found[table] = _sorted(json.loads(row[0]) for row in rows)
    return found


def as_before(
    now: dict[str, list[dict[str, Any]]], rows: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Returns the present rows, restricted to the tables, columns and document keys of `rows`.

    A migration may add tables, columns and keys.
    """
    return {
        table: _sorted(
            {column: _known(row[column], [each[column] for each in before]) for column in before[0]}
            for row in now[table]
        )
        for table, before in rows.items()
    }


def _known(value: Any, before: list[Any]) -> Any:
    if not isinstance(value, dict):
        return value
    known = {key for each in before if isinstance(each, dict) for key in each}
    return {key: inner for key, inner in value.items() if key in known}


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=json.dumps)
