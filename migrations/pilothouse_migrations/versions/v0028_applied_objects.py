"""What was applied is noted beside the work: the marks of a resource's objects on its cluster, as the apply left them.

A server that begins to watch a cluster compares them with what is there, so that changes which nobody saw are found
without applying anything. Null, as servers of the release before leave it: nothing is noted. Another `write_applied`
takes them beside all else that it writes of a container.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import v0025_work_in_one_message

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_NEW = "bytea[], text[])"


def upgrade() -> None:
    run("""
ALTER TABLE reconcile_work ADD COLUMN applied_objects jsonb;

COMMENT ON COLUMN reconcile_work.applied_objects IS
    'What the resource consisted of on its cluster when it was applied last: marks by kind and name. Null: not noted.';
""")
    run(WRITE)


def downgrade() -> None:
    run(f"""
DROP FUNCTION write_applied(bigint[], bigint[], text[], bigint[], double precision[], jsonb, jsonb, jsonb, {_NEW};
ALTER TABLE reconcile_work DROP COLUMN applied_objects;
""")


def _noting(sql: str) -> str:
    """Returns the function with one more parameter, the objects of each container as JSON."""
    for old, new in (
        ("p_messages bytea[])\n", "p_messages bytea[], p_objects text[])\n"),
        ("attempts = 0, updated_at = clock_timestamp()\n", _SET),
        ("FROM unnest(p_ids, p_seconds) AS d(id, seconds)", _FROM),
        ("    bytea[]) IS\n", f"    {_NEW} IS\n"),
        ("    bytea[]) TO @system@", f"    {_NEW} TO @system@"),
    ):
        assert sql.count(old) == 1, old
        sql = sql.replace(old, new)
    return sql


_SET = """attempts = 0, updated_at = clock_timestamp(),
            applied_objects = coalesce(d.objects::jsonb, w.applied_objects)
"""
_FROM = "FROM unnest(p_ids, p_seconds, p_objects) AS d(id, seconds, objects)"

WRITE = _noting(v0025_work_in_one_message.WRITE)
