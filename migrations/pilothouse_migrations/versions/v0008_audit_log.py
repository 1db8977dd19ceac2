"""The audit log: `operation_logs`, partitioned by month, and the sealed heads of its hash chain.

Every record has a `sequence` (gapless, in commit order), the hash of the record itself, and the hash of the chain
so far; see `append_changes` in the next migration, which is the only writer. No role but the owner may insert,
update or delete, so a record cannot be altered by anything the server says.

The words of the log are gRPC's: `status_code` is the HTTP mapping of `google.rpc.Code`, `error_code` its name,
`request_path` the full method, `request_method` UNARY or STREAM. A stream writes two records, opened and closed,
with the same `stream_id`.

`action` and `resource_type` are enforced; the lists hold the seed's and whatever the method options declare.

All of the seed's indexes are made. `idx_operation_logs_operation_id` is not repeated by a constraint here, because
a partitioned table cannot keep `operation_id` unique by itself (see `operations`).
"""

from __future__ import annotations

from pilothouse_migrations.statements import row_level_security, run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ACTIONS = (
    "create", "start", "stop", "pause", "restart", "delete", "update",
    "resume", "get", "list", "watch", "query", "import", "exec", "logs", "stream", "attach", "detach",
    "login", "logout", "refresh", "authenticate", "grant", "revoke", "reset", "reveal", "rotate", "check", "explain",
    "register", "deregister", "record", "verify", "export", "seal", "reconcile", "observe", "migrate", "other",
)  # fmt: skip
RESOURCE_TYPES = (
    "container", "namespace", "volume", "config_map", "secret",
    "user", "role", "role_grant", "api_key", "session", "permission", "principal", "cluster", "image", "pod", "log",
    "service_account", "status_history", "config", "encryption_key", "operation", "audit_log", "usage", "metrics",
    "quota", "database", "health", "reflection", "unknown",
)  # fmt: skip


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def upgrade() -> None:
    run(f"""
CREATE SEQUENCE operation_logs_id_seq AS bigint;

CREATE TABLE operation_logs (
    id bigint NOT NULL DEFAULT nextval('operation_logs_id_seq'),
    operation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id bigint,
    username varchar(50),
    action varchar(50) NOT NULL,
    resource_type varchar(50) NOT NULL,
    resource_id bigint,
    resource_name varchar(253),
    namespace_id bigint,
    request_method varchar(10),
    request_path varchar(500),
    request_body jsonb,
    request_headers jsonb,
    client_ip varchar(45),
    user_agent text,
    status_code integer,
    response_body jsonb,
    duration_ms integer,
    error_code varchar(50),
    error_message text,
    started_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    metadata jsonb NOT NULL DEFAULT '{{}}',
    stream_id uuid,
    sequence bigint NOT NULL,
    record_hash bytea NOT NULL,
    chain_hash bytea NOT NULL,
    CONSTRAINT pk_operation_logs PRIMARY KEY (id, started_at),
    CONSTRAINT uq_operation_logs_sequence UNIQUE (sequence, started_at),
    CONSTRAINT fk_operation_logs_user FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT fk_operation_logs_namespace FOREIGN KEY (namespace_id) REFERENCES namespaces (id),
    CONSTRAINT ck_operation_logs_action CHECK (action IN ({_quoted(ACTIONS)})),
    CONSTRAINT ck_operation_logs_resource_type CHECK (resource_type IN ({_quoted(RESOURCE_TYPES)})),
    CONSTRAINT ck_operation_logs_request_method CHECK (request_method IN ('UNARY', 'STREAM')),
    CONSTRAINT ck_operation_logs_status_code CHECK (status_code BETWEEN 100 AND 599),
    CONSTRAINT ck_operation_logs_duration_ms CHECK (duration_ms >= 0),
    CONSTRAINT ck_operation_logs_record_hash CHECK (octet_length(record_hash) = 32),
    CONSTRAINT ck_operation_logs_chain_hash CHECK (octet_length(chain_hash) = 32)
) PARTITION BY RANGE (started_at);

ALTER SEQUENCE operation_logs_id_seq OWNED BY operation_logs.id;

COMMENT ON TABLE operation_logs IS 'Audit log: every call of every service, chained by hash in commit order.';
COMMENT ON COLUMN operation_logs.sequence IS 'Position in the chain, from 1, without gaps.';
COMMENT ON COLUMN operation_logs.record_hash IS
    'SHA-256 of the record''s canonical JSON, computed by the application.';
COMMENT ON COLUMN operation_logs.chain_hash IS
    'SHA-256 of the previous chain hash, the sequence (8 bytes) and record_hash.';
COMMENT ON COLUMN operation_logs.stream_id IS 'Links the two records of a stream, opened and closed.';
COMMENT ON COLUMN operation_logs.request_body IS 'The request with every field declared secret left out.';
COMMENT ON COLUMN operation_logs.status_code IS
    'HTTP mapping of the google.rpc.Code; error_code has its name.';

CREATE INDEX idx_operation_logs_user_id ON operation_logs (user_id);
CREATE INDEX idx_operation_logs_action ON operation_logs (action);
CREATE INDEX idx_operation_logs_resource_type ON operation_logs (resource_type);
CREATE INDEX idx_operation_logs_resource_id ON operation_logs (resource_id);
CREATE INDEX idx_operation_logs_namespace_id ON operation_logs (namespace_id);
CREATE INDEX idx_operation_logs_started_at ON operation_logs (started_at);
CREATE INDEX idx_operation_logs_status_code ON operation_logs (status_code);
CREATE INDEX idx_operation_logs_operation_id ON operation_logs (operation_id);
CREATE INDEX idx_operation_logs_user_action_time ON operation_logs (user_id, action, started_at DESC);
CREATE INDEX idx_operation_logs_failed ON operation_logs (user_id, started_at) WHERE status_code >= 400;

SELECT create_monthly_partitions('operation_logs', (now() AT TIME ZONE 'UTC' - interval '1 month')::date, 14);

CREATE TABLE audit_seals (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    sequence bigint NOT NULL,
    chain_hash bytea NOT NULL,
    record_count bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    signature bytea,
    CONSTRAINT pk_audit_seals PRIMARY KEY (id),
    CONSTRAINT uq_audit_seals_sequence UNIQUE (sequence),
    CONSTRAINT ck_audit_seals_chain_hash CHECK (octet_length(chain_hash) = 32)
);

COMMENT ON TABLE audit_seals IS 'Heads of the audit chain, sealed for export.';
""")
    row_level_security("operation_logs")
    row_level_security("audit_seals")
    run("""
CREATE POLICY operation_log_policy ON operation_logs FOR SELECT TO @app@
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all())
        OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
GRANT SELECT ON operation_logs TO @app@, @system@;

CREATE POLICY audit_seals_visible_policy ON audit_seals FOR SELECT TO @app@ USING (true);
GRANT SELECT ON audit_seals TO @app@;
GRANT SELECT, INSERT ON audit_seals TO @system@;
""")


def downgrade() -> None:
    run("""
DROP TABLE audit_seals;
DROP TABLE operation_logs;
""")
