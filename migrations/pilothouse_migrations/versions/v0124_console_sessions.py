"""Which sessions are those of a browser: one credential that does not rotate."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0124"
down_revision = "0123"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that get another text, are new or go. Their former texts are in 0121_console_sessions/before/.
replaces = ()
# Tables that are altered, or whose indexes are dropped: they are locked before anything else.
locks = ("sessions",)


def upgrade() -> None:
    statements.run("""
        ALTER TABLE sessions ADD COLUMN console boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN sessions.console IS
            'Whether it is a browser''s: its access token does not rotate, and its end moves on while it is used.';
    """)


def downgrade() -> None:
    # Earlier releases do not know their credentials.
    statements.run("""
        DELETE FROM sessions WHERE console;
        ALTER TABLE sessions DROP COLUMN console;
    """)
