"""What is kept in `user_secrets`: also seeds of authenticators, and several secrets of a kind, told apart by a name.

A user has one secret of a kind under each name, so that a newer one replaces it in its row.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE user_secrets ADD COLUMN name varchar(255) NOT NULL DEFAULT '';
COMMENT ON COLUMN user_secrets.name IS 'Tells several secrets of a kind apart, such as the tokens of several issuers.';
ALTER TABLE user_secrets DROP CONSTRAINT ck_user_secrets_secret_type;
ALTER TABLE user_secrets ADD CONSTRAINT ck_user_secrets_secret_type
    CHECK (secret_type IN ('api_key', 'password', 'token', 'totp'));
DROP INDEX idx_user_secrets_user_id;
CREATE UNIQUE INDEX uq_user_secrets_name ON user_secrets (user_id, secret_type, name);
""")


def downgrade() -> None:
    run("""
DELETE FROM user_secrets WHERE secret_type = 'totp' OR name <> '';
CREATE INDEX idx_user_secrets_user_id ON user_secrets (user_id);
DROP INDEX uq_user_secrets_name;
ALTER TABLE user_secrets DROP CONSTRAINT ck_user_secrets_secret_type;
ALTER TABLE user_secrets ADD CONSTRAINT ck_user_secrets_secret_type
    CHECK (secret_type IN ('api_key', 'password', 'token'));
ALTER TABLE user_secrets DROP COLUMN name;
""")
