"""Conventions of the schema, checked in the catalogue: names of constraints, comments, indexes on foreign keys."""

from __future__ import annotations

import re

import asyncpg

from tests.conftest import Database

_PREFIXES = {"p": "pk_", "u": "uq_", "f": "fk_", "c": "ck_"}
_OURS = "relnamespace = 'public'::regnamespace AND NOT relispartition AND relname <> 'alembic_version'"


async def test_every_constraint_is_named_for_its_kind_and_table(database: Database) -> None:
    """The errors of the API are found by the constraint's name."""
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT k.conname, k.contype::text, c.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
            WHERE {_OURS} AND k.contype NOT IN ('n', 't')"""
        )
    assert len(rows) > 100
    wrong = [row[0] for row in rows if not row[0].startswith(f"{_PREFIXES[row[1]]}{row[2]}")]
    assert wrong == []


async def test_every_index_is_named(database: Database) -> None:
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT i.indexrelid::regclass::text, i.indisunique FROM pg_index i
            JOIN pg_class c ON c.oid = i.indrelid WHERE {_OURS.replace("rel", "c.rel")}"""
        )
    assert len(rows) > 100
    wrong = [name for name, unique in rows if not re.match(r"(pk|uq)_" if unique else r"idx_", name)]
    assert wrong == []


async def test_every_relation_and_function_has_a_comment(database: Database) -> None:
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT relname FROM pg_class c WHERE {_OURS} AND relkind IN ('r', 'p', 'v', 'm')
              AND obj_description(c.oid, 'pg_class') IS NULL
            UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
              AND obj_description(p.oid, 'pg_proc') IS NULL
            UNION ALL SELECT relname FROM pg_class c WHERE relispartition AND relkind = 'r'
              AND obj_description(c.oid, 'pg_class') IS NULL"""
        )
    assert [row[0] for row in rows] == []


async def _columns_without_a_comment(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch(
        """SELECT format('%s.%s', c.relname, a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND relkind IN ('r', 'p') AND attnum > 0
          AND NOT attisdropped AND coalesce(col_description(c.oid, attnum), E'\\n') LIKE E'%\\n%' ORDER BY 1"""
    )
    return [row[0] for row in rows]


async def test_every_column_has_a_comment_of_one_line(database: Database) -> None:
    async with database.owner() as owner:
        assert await _columns_without_a_comment(owner) == []
        # The control.
        await owner.execute("ALTER TABLE leases ADD COLUMN note text")
        await owner.execute("COMMENT ON COLUMN leases.epoch IS E'two\\nlines'")
        assert await _columns_without_a_comment(owner) == ["leases.epoch", "leases.note"]


async def test_every_foreign_key_has_an_index(database: Database) -> None:
    """Without one, deleting the referenced row reads the whole table."""
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT k.conname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
            WHERE {_OURS} AND k.contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indpred IS NULL
                  AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)"""
        )
    assert [row[0] for row in rows] == []


async def test_no_index_repeats_another(database: Database) -> None:
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT a.indexrelid::regclass::text FROM pg_index a JOIN pg_index b USING (indrelid)
            JOIN pg_class c ON c.oid = indrelid
            WHERE {_OURS} AND a.indexrelid <> b.indexrelid AND a.indkey = b.indkey AND a.indclass = b.indclass
              AND a.indoption = b.indoption AND a.indpred IS NULL AND b.indpred IS NULL"""
        )
    assert [row[0] for row in rows] == []


async def test_no_column_has_a_type_that_the_conventions_exclude(database: Database) -> None:
    async with database.owner() as owner:
        rows = await owner.fetch(
            f"""SELECT format('%s.%s', c.relname, a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE {_OURS} AND relkind IN ('r', 'p') AND a.attnum > 0
              AND a.atttypid IN ('timestamp'::regtype, 'json'::regtype, 'money'::regtype, 'real'::regtype,
                                 'double precision'::regtype, 'char'::regtype)"""
        )
    assert [row[0] for row in rows] == []
