"""What began a session: a password, with a second factor or without, an issuer's token, or a token exchanged.

Sessions that are there were begun by a password.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE sessions ADD COLUMN method varchar(20) NOT NULL DEFAULT 'password'
    CONSTRAINT ck_sessions_method
    CHECK (method IN ('password', 'password_totp', 'password_recovery', 'oidc', 'token_exchange'));
COMMENT ON COLUMN sessions.method IS 'What the user or program has shown to begin it.';
""")


def downgrade() -> None:
    run("""
ALTER TABLE sessions DROP COLUMN method;
""")
