"""When the user of a session last showed who they are: a stolen session makes no keys and enrols no second factor."""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0051"
down_revision = "0058"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Sessions of the release before have none: their users are asked once.
    run("""
ALTER TABLE sessions ADD COLUMN proved_at timestamptz;
COMMENT ON COLUMN sessions.proved_at IS
    'When the user last showed a password, a code or a log-in at an issuer; a refresh carries it over. Null: unknown.';
""")


def downgrade() -> None:
    run("""
ALTER TABLE sessions DROP COLUMN proved_at;
""")
