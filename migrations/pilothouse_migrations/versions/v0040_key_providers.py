"""Which provider had a key-encryption key last: what is told where a server has the key no more.

Of the keys that are there it is noted at the next start of a server that has them. `app_operation_id`, which no
statement ever called, goes.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE encryption_keys ADD COLUMN provider varchar(20)
    CONSTRAINT ck_encryption_keys_provider CHECK (provider IN ('file', 'environment', 'pkcs11'));
COMMENT ON COLUMN encryption_keys.provider IS 'Who gave the key to the server that used it last; NULL: not known.';
DROP FUNCTION app_operation_id();
""")


def downgrade() -> None:
    run("""
ALTER TABLE encryption_keys DROP COLUMN provider;
CREATE FUNCTION app_operation_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN nullif(current_setting('app.operation_id', true), '')::uuid;
COMMENT ON FUNCTION app_operation_id() IS 'The operation this transaction belongs to, or null.';
GRANT EXECUTE ON FUNCTION app_operation_id() TO @app@, @system@;
""")
