"""The content of the database by table, to compare two moments."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import asyncpg

from tests.conftest import number_changes
from tests.waiting import poll_until

# True once the events of mounts and of containers' Services are written.
NOTHING_FOLLOWS = (
    "SELECT NOT EXISTS (SELECT FROM mount_changes) AND NOT EXISTS (SELECT FROM service_changes) "
    "AND NOT EXISTS (SELECT FROM claim_changes)"
)
# The tables that a record is written to, and the head that numbers it.
RECORDS = frozenset({"operation_logs", "pending_changes", "stream_head"})
# These columns change independently of the calls: the last use of a session is recorded at most once a minute,
# and each pass of the sequencer moves the search for pending changes.
_BESIDE = {
    "sessions": ("last_used_at",),
    "stream_head": ("pending_floor", "floor_candidate", "floor_transaction"),
}
# Written by the server's own periodic work, independently of calls.
_BACKGROUND = frozenset({"periodic_jobs", "audit_seals", "audit_tiles", "audit_tree"})
_TABLES = """
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname
"""


async def contents(sql: asyncpg.Connection, leaving_out: Collection[str] = ()) -> Mapping[str, str]:
    """Returns the digest of all rows of each table, except those left out.

    Sequences do not count. A server writes the events of mounted volumes and of containers' Services soon after
    the change of a container. This function waits for them.
    """
    await poll_until(lambda: sql.fetchval(NOTHING_FOLLOWS))
    await number_changes(sql)
    left_out = _BACKGROUND.union(leaving_out)
    names = [row["relname"] for row in await sql.fetch(_TABLES) if row["relname"] not in left_out]
    digests = ", ".join(
        f"(SELECT coalesce(md5(string_agg(md5((to_jsonb(t) - '{{{beside}}}'::text[])::text), ',' "
        f"ORDER BY md5((to_jsonb(t) - '{{{beside}}}'::text[])::text))), '') FROM {name} AS t) AS {name}"
        for name, beside in ((name, ",".join(_BESIDE.get(name, ()))) for name in names)
    )
    row = await sql.fetchrow(f"SELECT {digests}")
    assert row is not None
    return dict(row)
