"""Where accounts have logged in from: `login_origins`.

Five wrong guesses lock an account, so a stranger could keep anybody out. A device that logged in before, and an address
that the account logged in from, pass that lock; what fails there is counted in a row of their own. Rows are made by
log-ins that succeed, so that nobody fills the table by guessing. There is no foreign key to `users`: as in
`login_throttles`, an account is found by the hash of its name, by the same statements whether it exists or not. That a
row is of the user's present password is seen by `password_changed_at`.
"""

from __future__ import annotations

from pilothouse_migrations.statements import row_level_security, run

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE TABLE login_origins (
    account_hash bytea NOT NULL,
    origin_hash bytea NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    logins integer NOT NULL DEFAULT 1,
    password_changed_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_login_origins PRIMARY KEY (account_hash, origin_hash),
    CONSTRAINT ck_login_origins_failures CHECK (failures >= 0),
    CONSTRAINT ck_login_origins_logins CHECK (logins >= 1)
);

COMMENT ON TABLE login_origins IS
    'Devices and addresses that accounts have logged in from, and the guesses that failed there since.';
COMMENT ON COLUMN login_origins.account_hash IS 'Hash of the normalised user name, as in login_throttles.';
COMMENT ON COLUMN login_origins.origin_hash IS 'Hash of a device, or keyed hash of an address.';
COMMENT ON COLUMN login_origins.password_changed_at IS 'That of the user when it last logged in from there.';

CREATE INDEX idx_login_origins_updated_at ON login_origins (updated_at);
""")
    row_level_security("login_origins")
    run("""
GRANT SELECT, INSERT, UPDATE, DELETE ON login_origins TO @system@;
""")


def downgrade() -> None:
    run("""
DROP TABLE login_origins;
""")
