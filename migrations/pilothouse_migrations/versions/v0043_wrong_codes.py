"""How many wrong codes have followed right passwords since the last right one.

The lock of an account bounds how fast codes are guessed. This bounds how many: a code has six digits, and who knows the
password could go on for years.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE users ADD COLUMN totp_failures integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN users.totp_failures IS 'Wrong codes in a row, each after a right password.';
""")


def downgrade() -> None:
    run("""
ALTER TABLE users DROP COLUMN totp_failures;
""")
