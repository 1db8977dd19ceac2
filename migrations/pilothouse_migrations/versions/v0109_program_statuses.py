"""The observed state of a container contains that of each program of its pods."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0109"
down_revision = "0108"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
replaces = ("write_observed",)
locks = ("containers",)


def upgrade() -> None:
    statements.run("""
        ALTER TABLE containers ADD COLUMN programs jsonb NOT NULL DEFAULT '[]';
        COMMENT ON COLUMN containers.programs IS 'The programs of its living pods with their states, as observed.';
    """)
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
    statements.run("ALTER TABLE containers DROP COLUMN programs;")
