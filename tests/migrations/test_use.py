"""Every table of the schema is written and read, and every function is called."""

from __future__ import annotations

import pytest

from tests.conftest import Database, connection
from tests.migrations import use

# Objects for other users than this release's servers. An entry that is no longer true makes the test fail.
OF_OTHERS = {
    "function drop_old_partitions is not called": "for who looks after a database by hand; servers detach partitions"
    " concurrently, which no function can",
    "function old_partitions is not called": "by drop_old_partitions",
}


async def test_every_table_is_written_and_read_and_every_function_called(database: Database) -> None:
    async with connection(database.admin_dsn) as admin:
        assert await use.unused(admin, use.product()) == sorted(OF_OTHERS)


# Unused objects, and the findings about each.
_FOR_SHOW = (
    (
        "CREATE TABLE left_alone (id bigint)",
        ["table left_alone is not read", "table left_alone is not written"],
    ),
    ("CREATE VIEW looked_at_by_none AS SELECT id FROM users", ["view looked_at_by_none is not read"]),
    (
        "CREATE FUNCTION called_by_none() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        ["function called_by_none is not called"],
    ),
    # A function that is not called uses nothing.
    (
        "CREATE TABLE for_show (id bigint); CREATE FUNCTION shows() RETURNS bigint LANGUAGE sql AS "
        "'INSERT INTO for_show VALUES (1); SELECT id FROM for_show'",
        [
            "function shows is not called",
            "table for_show is not read",
            "table for_show is not written",
        ],
    ),
)


@pytest.mark.full
async def test_unused_objects_are_reported(database: Database) -> None:
    async with connection(database.admin_dsn) as admin:
        for statement, _ in _FOR_SHOW:
            await admin.execute(statement)
        found = set(await use.unused(admin, use.product())) - set(OF_OTHERS)
    assert found == {line for _, told in _FOR_SHOW for line in told}


def test_a_table_that_is_only_emptied_is_neither_written_nor_read() -> None:
    sql = "DELETE FROM heap WHERE id = 1;"
    assert not use.writes("heap", sql)
    assert not use.reads("heap", sql)
    assert use.reads("heap", "DELETE FROM heap WHERE id = 1 RETURNING id;")
    assert use.reads("heap", "SELECT 1 FROM\n    heap AS h;")
    assert use.writes("heap", "insert into public.heap values (1)")
