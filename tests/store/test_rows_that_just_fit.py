"""A pending row of any size can be written.

For a row that almost fills a page, PostgreSQL computes the size of small arrays too low.
"""

from __future__ import annotations

from tests.conftest import Database

# One row of each size around that of a page, with PL/pgSQL variables, as `put_changes` inserts it.
_ROWS = """
DO $$
DECLARE
    v_hashes pending_hash[] := ARRAY[sha256('a')];
    v_events pending_event[] := '{}';
    v_messages bytea[] := '{}';
    v_records pending_record[];
BEGIN
    FOR v_size IN 7700..8100 LOOP
        v_records := ARRAY[jsonb_populate_record(NULL::pending_record_row, jsonb_build_object(
            'operation_id', gen_random_uuid(), 'action', 'create', 'resource_type', 'container',
            'request_method', 'UNARY', 'status_code', 200, 'duration_ms', 1, 'started_at', now(),
            'completed_at', now(), 'metadata', '{}'::jsonb, 'request_body', to_jsonb(repeat('x', v_size))))];
        INSERT INTO pending_changes (records, record_hashes, events, messages)
        VALUES (v_records, v_hashes, v_events, v_messages);
    END LOOP;
END
$$
"""


async def test_a_row_of_each_size_around_a_page_is_written(database: Database) -> None:
    async with database.owner() as owner:
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(_ROWS)
        sizes = await owner.fetchval("SELECT count(*) FROM pending_changes")
        longest = await owner.fetchval("SELECT max(pg_column_size(p.*)) FROM pending_changes AS p")
        await transaction.rollback()
    assert sizes == 401
    # Some rows were short enough not to be compressed or moved out, so the sizes are around the limit.
    assert longest > 7900
