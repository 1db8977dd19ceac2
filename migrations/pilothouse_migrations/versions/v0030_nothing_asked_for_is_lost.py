"""What was asked for is not lost on two ways on which it was: an end of leases, and a record without a partition.

Leases. `write_applied` put work off to the next look, a day later, that was asked for after its lease had run out: such
a row is due at the lease's end, so that asking changes nothing, and "due before the end of the lease" does not hold.
Whether something was asked for cannot be told then, so the work is looked at once more.

Records. A record of a server whose clock is far ahead or behind lies in a month that has no partition. Its change was
set aside after the second attempt, with its events, which no watcher was told. Now everything waits, as it does for a
partition of events, until one is made for what is pending, which takes a moment.
"""

from __future__ import annotations

from pilothouse_migrations import incidents
from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import v0028_applied_objects

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(_replaced(_changed(v0028_applied_objects.WRITE, _ASKED_FOR)))
    run(_replaced(_changed(incidents.SET_ASIDE, _BLAMELESS)))


def downgrade() -> None:
    run(_replaced(v0028_applied_objects.WRITE))
    run(_replaced(incidents.SET_ASIDE))


def _replaced(sql: str) -> str:
    """Returns the definition of a function that is there."""
    return sql.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


def _changed(sql: str, change: tuple[str, str]) -> str:
    old, new = change
    assert sql.count(old) == 1, old
    return sql.replace(old, new)


_ASKED_FOR = (
    """
        -- Work that was asked for during the lease is due before its end, and stays due.
        UPDATE public.reconcile_work AS w
        SET due_at = least(CASE WHEN w.due_at < w.leased_until THEN w.due_at END,
""",
    """
        -- Work that was asked for during the lease is due before its end, and stays due. A lease that has run out is
        -- due itself: whether something was asked for since cannot be told, so that it is looked at once more.
        UPDATE public.reconcile_work AS w
        SET due_at = least(CASE WHEN w.due_at < w.leased_until OR w.leased_until <= clock_timestamp()
                                THEN w.due_at END,
""",
)
_BLAMELESS = (
    """
    BEGIN
""",
    """
    BEGIN
        -- No change is to blame for the time at which it was made: all wait until a partition holds it.
        IF p_sqlstate = '23514' AND p_constraint = 'operation_logs' THEN
            RAISE EXCEPTION 'no partition of operation_logs holds the time of a record'
                USING ERRCODE = 'configuration_limit_exceeded';
        END IF;
""",
)
