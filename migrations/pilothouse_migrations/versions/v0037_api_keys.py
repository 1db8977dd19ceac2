"""API keys as they are used, and service accounts, which have keys alone.

A service account is a user of another kind: it has no password, and belongs to a namespace or, without one, to the
platform. Who reaches its namespace sees it, and may make and end it: its name holds that of the namespace, so it tells
nobody of another's. A key of it carries its namespace, bound to it by the foreign key, so that the policy needs no
look at users; `account_namespace_id` is null for keys of people and of the platform's accounts.

A key that is rotated lives on beside its successor, so the name is unique among those that were not.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_REACHED = "(SELECT app_sees_all()) OR {} = ANY ((SELECT app_namespace_ids())::bigint[])"
_OF_ACCOUNTS = "kind = 'service_account' AND namespace_id = ANY ((SELECT app_namespace_ids())::bigint[])"


def upgrade() -> None:
    run("""
ALTER TABLE users ADD COLUMN kind varchar(20) NOT NULL DEFAULT 'person'
    CONSTRAINT ck_users_kind CHECK (kind IN ('person', 'service_account'));
ALTER TABLE users ADD COLUMN namespace_id bigint;
ALTER TABLE users ADD CONSTRAINT fk_users_namespace
    FOREIGN KEY (namespace_id) REFERENCES namespaces (id) NOT VALID;
ALTER TABLE users VALIDATE CONSTRAINT fk_users_namespace;
ALTER TABLE users ADD CONSTRAINT ck_users_namespace
    CHECK (namespace_id IS NULL OR kind = 'service_account') NOT VALID;
ALTER TABLE users VALIDATE CONSTRAINT ck_users_namespace;
CREATE UNIQUE INDEX uq_users_id_namespace ON users (id, namespace_id);
COMMENT ON COLUMN users.kind IS 'A service account has no password and acts by keys.';
COMMENT ON COLUMN users.namespace_id IS 'Where a service account belongs; null where it is the platform''s.';
CREATE INDEX idx_users_namespace_id ON users (namespace_id);

ALTER TABLE api_keys ADD COLUMN uid uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE api_keys ADD COLUMN account_namespace_id bigint;
ALTER TABLE api_keys ADD COLUMN namespace_ids bigint[];
ALTER TABLE api_keys ADD COLUMN read_only boolean NOT NULL DEFAULT false;
ALTER TABLE api_keys ADD COLUMN allowed_networks text[] NOT NULL DEFAULT '{}';
ALTER TABLE api_keys ADD COLUMN last_used_ip varchar(45);
ALTER TABLE api_keys ADD COLUMN rotated_at timestamptz;
ALTER TABLE api_keys ADD COLUMN created_by bigint;
CREATE UNIQUE INDEX uq_api_keys_uid ON api_keys (uid);
ALTER TABLE api_keys ADD CONSTRAINT fk_api_keys_account
    FOREIGN KEY (user_id, account_namespace_id) REFERENCES users (id, namespace_id) NOT VALID;
ALTER TABLE api_keys VALIDATE CONSTRAINT fk_api_keys_account;
ALTER TABLE api_keys ADD CONSTRAINT fk_api_keys_created_by
    FOREIGN KEY (created_by) REFERENCES users (id) NOT VALID;
ALTER TABLE api_keys VALIDATE CONSTRAINT fk_api_keys_created_by;
UPDATE api_keys SET expires_at = now() + interval '90 days' WHERE expires_at IS NULL;
ALTER TABLE api_keys ADD CONSTRAINT ck_api_keys_expires_at CHECK (expires_at IS NOT NULL) NOT VALID;
ALTER TABLE api_keys VALIDATE CONSTRAINT ck_api_keys_expires_at;
COMMENT ON COLUMN api_keys.account_namespace_id IS 'That of the service account whose key it is, if it has one.';
COMMENT ON COLUMN api_keys.namespace_ids IS 'Keeps the key to these namespaces; null is all that its user reaches.';
COMMENT ON COLUMN api_keys.allowed_networks IS 'Where the key is taken from, as CIDR; empty is everywhere.';
COMMENT ON COLUMN api_keys.rotated_at IS 'When another key took its place; it lives on until expires_at.';

DROP INDEX uq_api_keys_user_name;
CREATE UNIQUE INDEX uq_api_keys_user_name ON api_keys (user_id, name)
    WHERE revoked_at IS NULL AND rotated_at IS NULL;
DROP INDEX idx_api_keys_user_id;
CREATE INDEX idx_api_keys_account ON api_keys (user_id, account_namespace_id);
CREATE INDEX idx_api_keys_created_by ON api_keys (created_by);
CREATE INDEX idx_api_keys_dead_at ON api_keys (least(expires_at, revoked_at));
""")
    run(f"""
DROP POLICY users_visible_policy ON users;
CREATE POLICY users_visible_policy ON users FOR SELECT TO @app@
    USING (id = (SELECT app_user_id()) OR (SELECT app_sees_all()) OR id = ANY ((SELECT app_peer_ids())::bigint[])
        OR {_OF_ACCOUNTS});
DROP POLICY users_insert_policy ON users;
CREATE POLICY users_insert_policy ON users FOR INSERT TO @app@
    WITH CHECK ((SELECT app_sees_all()) OR {_OF_ACCOUNTS});
DROP POLICY users_update_policy ON users;
CREATE POLICY users_update_policy ON users FOR UPDATE TO @app@
    USING (id = (SELECT app_user_id()) OR (SELECT app_sees_all()) OR {_OF_ACCOUNTS});
GRANT SELECT (kind, namespace_id) ON users TO @app@;

DROP POLICY api_keys_access_policy ON api_keys;
CREATE POLICY api_keys_access_policy ON api_keys TO @app@
    USING (user_id = (SELECT app_user_id()) OR {_REACHED.format("account_namespace_id")})
    WITH CHECK (user_id = (SELECT app_user_id()) OR {_REACHED.format("account_namespace_id")});
""")


def downgrade() -> None:
    run("""
DROP POLICY api_keys_access_policy ON api_keys;
CREATE POLICY api_keys_access_policy ON api_keys TO @app@
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()))
    WITH CHECK (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()));
DROP POLICY users_visible_policy ON users;
CREATE POLICY users_visible_policy ON users FOR SELECT TO @app@
    USING (id = (SELECT app_user_id()) OR (SELECT app_sees_all()) OR id = ANY ((SELECT app_peer_ids())::bigint[]));
DROP POLICY users_insert_policy ON users;
CREATE POLICY users_insert_policy ON users FOR INSERT TO @app@ WITH CHECK ((SELECT app_sees_all()));
DROP POLICY users_update_policy ON users;
CREATE POLICY users_update_policy ON users FOR UPDATE TO @app@
    USING (id = (SELECT app_user_id()) OR (SELECT app_sees_all()));

DELETE FROM api_keys WHERE rotated_at IS NOT NULL OR cardinality(allowed_networks) > 0 OR read_only
    OR namespace_ids IS NOT NULL;
DROP INDEX idx_api_keys_dead_at;
DROP INDEX idx_api_keys_created_by;
DROP INDEX uq_api_keys_user_name;
CREATE UNIQUE INDEX uq_api_keys_user_name ON api_keys (user_id, name) WHERE revoked_at IS NULL;
ALTER TABLE api_keys DROP COLUMN uid;
ALTER TABLE api_keys DROP COLUMN account_namespace_id;
ALTER TABLE api_keys DROP COLUMN namespace_ids;
ALTER TABLE api_keys DROP COLUMN read_only;
ALTER TABLE api_keys DROP COLUMN allowed_networks;
ALTER TABLE api_keys DROP COLUMN last_used_ip;
ALTER TABLE api_keys DROP COLUMN rotated_at;
ALTER TABLE api_keys DROP COLUMN created_by;
ALTER TABLE api_keys DROP CONSTRAINT ck_api_keys_expires_at;
CREATE INDEX idx_api_keys_user_id ON api_keys (user_id);

DELETE FROM api_keys WHERE user_id IN (SELECT id FROM users WHERE kind = 'service_account');
UPDATE users SET deleted_at = coalesce(deleted_at, now()) WHERE kind = 'service_account';
ALTER TABLE users DROP COLUMN namespace_id;
ALTER TABLE users DROP COLUMN kind;
""")
