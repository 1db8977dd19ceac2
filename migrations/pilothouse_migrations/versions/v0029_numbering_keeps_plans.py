"""The functions that number changes keep their plans.

PostgreSQL planned what they read of the partitions of `events` anew for each pass, because a plan for the one partition
that there is something in looks cheaper; planning it costs more. All their statements go by keys.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_FUNCTIONS = (
    "number_pending(bigint[])",
    "number_visible(integer, bigint)",
    "sequence_changes(integer)",
)


def upgrade() -> None:
    for function in _FUNCTIONS:
        run(f"ALTER FUNCTION {function} SET plan_cache_mode = force_generic_plan;")


def downgrade() -> None:
    for function in _FUNCTIONS:
        run(f"ALTER FUNCTION {function} RESET plan_cache_mode;")
