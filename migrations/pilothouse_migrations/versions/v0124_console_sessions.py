"""Marks the sessions of browsers: each has one credential that does not rotate."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0124"
down_revision = "0123"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("sessions",)


def upgrade() -> None:
    statements.run("""
        ALTER TABLE sessions ADD COLUMN console boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN sessions.console IS
            'Whether it is a browser''s: its access token does not rotate, and its end moves on while it is used.';
    """)


def downgrade() -> None:
    # Earlier releases do not recognise the credentials of these sessions.
    statements.run("""
        DELETE FROM sessions WHERE console;
        ALTER TABLE sessions DROP COLUMN console;
    """)
