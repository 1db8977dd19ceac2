"""Log-ins that wait for a person elsewhere: `device_logins`.

A device has asked its issuer for a code (RFC 8628), and asks from time to time whether somebody has agreed. What is
kept between two of its calls stands here, so that no server remembers anything and any of them answers the next one.
The issuer's code is encrypted under a key that only the device's own token gives, of which the hash is kept.
"""

from __future__ import annotations

from pilothouse_migrations.statements import row_level_security, run

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE TABLE device_logins (
    token_hash bytea NOT NULL,
    issuer varchar(40) NOT NULL,
    sealed_code bytea NOT NULL,
    address_hash bytea NOT NULL,
    interval_seconds integer NOT NULL,
    next_poll_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_device_logins PRIMARY KEY (token_hash),
    CONSTRAINT ck_device_logins_token_hash CHECK (octet_length(token_hash) = 32),
    CONSTRAINT ck_device_logins_interval_seconds CHECK (interval_seconds BETWEEN 1 AND 3600)
);

COMMENT ON TABLE device_logins IS 'Log-ins of devices that wait for a person to agree at the issuer.';
COMMENT ON COLUMN device_logins.token_hash IS 'SHA-256 of the token that the device asks with.';
COMMENT ON COLUMN device_logins.sealed_code IS 'The code of the issuer, under a key that only that token gives.';
COMMENT ON COLUMN device_logins.address_hash IS 'Keyed hash of the address that began it, which may have so many.';
COMMENT ON COLUMN device_logins.next_poll_at IS 'Before it the issuer is not asked again.';

CREATE INDEX idx_device_logins_address_hash ON device_logins (address_hash, expires_at);
CREATE INDEX idx_device_logins_expires_at ON device_logins (expires_at);
""")
    row_level_security("device_logins")
    run("""
GRANT SELECT, INSERT, UPDATE, DELETE ON device_logins TO @system@;
""")


def downgrade() -> None:
    run("""
DROP TABLE device_logins;
""")
