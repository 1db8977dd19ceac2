-- Each record of the log has a sequence without gaps, in commit order. The functions number_pending and set_aside are
-- its only writers: no role but the owner may insert, update or delete. The words of action and resource_type are
-- checked by the server at its start, not by SQL, so a new word needs no migration.
--
-- The tree (RFC 6962) is grown next to the sequencer by the server that seals. audit_tiles holds full tiles only,
-- which are never written again; the rest is audit_tree.edge. Level 0 holds the leaves' data, 256 record hashes a
-- tile; each hash of the levels above is the root of a full tile below. Retention may drop records; their hashes stay.
--
-- A sink's position moves after the records were acknowledged, under the lease that lease_owner and lease_epoch name.

CREATE SEQUENCE operation_logs_id_seq;

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
    metadata jsonb NOT NULL DEFAULT '{}',
    stream_id uuid,
    sequence bigint NOT NULL,
    record_hash bytea NOT NULL,
    mark bytea NOT NULL,
    CONSTRAINT pk_operation_logs PRIMARY KEY (id, started_at),
    CONSTRAINT uq_operation_logs_sequence UNIQUE (sequence, started_at),
    CONSTRAINT fk_operation_logs_namespace FOREIGN KEY (namespace_id) REFERENCES namespaces(id),
    CONSTRAINT fk_operation_logs_user FOREIGN KEY (user_id) REFERENCES users(id),
    CONSTRAINT ck_operation_logs_duration_ms CHECK (duration_ms >= 0),
    CONSTRAINT ck_operation_logs_mark CHECK (octet_length(mark) = 8),
    CONSTRAINT ck_operation_logs_record_hash CHECK (octet_length(record_hash) = 32),
    CONSTRAINT ck_operation_logs_request_method CHECK (request_method IN ('UNARY', 'STREAM')),
    CONSTRAINT ck_operation_logs_status_code CHECK (status_code BETWEEN 100 AND 599)
) PARTITION BY RANGE (started_at);

ALTER SEQUENCE operation_logs_id_seq OWNED BY operation_logs.id;

CREATE INDEX idx_operation_logs_action ON operation_logs (action);
CREATE INDEX idx_operation_logs_failed ON operation_logs (user_id, started_at) WHERE status_code >= 400;
CREATE INDEX idx_operation_logs_namespace_id ON operation_logs (namespace_id);
CREATE INDEX idx_operation_logs_operation_id ON operation_logs (operation_id);
CREATE INDEX idx_operation_logs_resource_id ON operation_logs (resource_id);
CREATE INDEX idx_operation_logs_resource_type ON operation_logs (resource_type);
CREATE INDEX idx_operation_logs_started_at ON operation_logs (started_at);
CREATE INDEX idx_operation_logs_status_code ON operation_logs (status_code);
CREATE INDEX idx_operation_logs_user_action_time ON operation_logs (user_id, action, started_at DESC);
CREATE INDEX idx_operation_logs_user_id ON operation_logs (user_id);

COMMENT ON TABLE operation_logs IS 'Audit log: every call of every service, in commit order.';
COMMENT ON COLUMN operation_logs.id IS 'Key of the row together with started_at; its order means nothing.';
COMMENT ON COLUMN operation_logs.operation_id IS 'The call or system operation; a stream has two records.';
COMMENT ON COLUMN operation_logs.user_id IS 'User who called; null: nobody or the system.';
COMMENT ON COLUMN operation_logs.username IS 'Name of that user at the time of the call.';
COMMENT ON COLUMN operation_logs.action IS 'Verb of the record, such as create or reveal.';
COMMENT ON COLUMN operation_logs.resource_type IS 'Noun of the record, such as container.';
COMMENT ON COLUMN operation_logs.resource_id IS 'The resource; null where there is none or it was not found.';
COMMENT ON COLUMN operation_logs.resource_name IS 'Name of the resource at the time of the call.';
COMMENT ON COLUMN operation_logs.namespace_id IS 'Namespace of the resource; null: of the platform.';
COMMENT ON COLUMN operation_logs.request_method IS 'UNARY or STREAM; null for system operations.';
COMMENT ON COLUMN operation_logs.request_path IS 'Full name of the gRPC method.';
COMMENT ON COLUMN operation_logs.request_body IS 'The request without secret fields.';
COMMENT ON COLUMN operation_logs.request_headers IS 'The request headers that the settings select.';
COMMENT ON COLUMN operation_logs.client_ip IS 'Address of the caller.';
COMMENT ON COLUMN operation_logs.user_agent IS 'user-agent header of the caller.';
COMMENT ON COLUMN operation_logs.status_code IS 'HTTP mapping of the google.rpc.Code; error_code has its name.';
COMMENT ON COLUMN operation_logs.response_body IS 'The response without secret fields, where the method records it.';
COMMENT ON COLUMN operation_logs.duration_ms IS 'Duration of the call.';
COMMENT ON COLUMN operation_logs.error_code IS 'Name of the google.rpc.Code; null: success.';
COMMENT ON COLUMN operation_logs.error_message IS 'Message of the error.';
COMMENT ON COLUMN operation_logs.started_at IS 'When the call began; the log is partitioned by it.';
COMMENT ON COLUMN operation_logs.completed_at IS 'When the call ended; null for the first record of a stream.';
COMMENT ON COLUMN operation_logs.metadata IS 'Further facts, such as the grant that allowed the call.';
COMMENT ON COLUMN operation_logs.stream_id IS 'Links the two records of a stream, opened and closed.';
COMMENT ON COLUMN operation_logs.sequence IS 'Position in the log, from 1, without gaps; the leaf sequence - 1 of the tree.';
COMMENT ON COLUMN operation_logs.record_hash IS 'SHA-256 of the record''s canonical JSON, computed by the application.';
COMMENT ON COLUMN operation_logs.mark IS
    'Eight random bytes that only this record has: another mark at the same sequence is another log.';


CREATE TABLE audit_tree (
    id smallint NOT NULL DEFAULT 1,
    log_id uuid NOT NULL DEFAULT gen_random_uuid(),
    origin varchar(200),
    history_id uuid NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    edge bytea[] NOT NULL DEFAULT '{}',
    origins text[] NOT NULL DEFAULT '{}',
    stopped_history uuid,
    stopped_reason text,
    CONSTRAINT pk_audit_tree PRIMARY KEY (id),
    CONSTRAINT ck_audit_tree_id CHECK (id = 1),
    CONSTRAINT ck_audit_tree_size CHECK (size >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE audit_tree IS 'One row: how far the tree over the audit log has grown. Its lock is held to grow it.';
COMMENT ON COLUMN audit_tree.id IS 'Always 1.';
COMMENT ON COLUMN audit_tree.log_id IS 'Random id of the log.';
COMMENT ON COLUMN audit_tree.origin IS 'Name of the log in its heads; set once.';
COMMENT ON COLUMN audit_tree.history_id IS 'History of the database of which heads are signed under this origin.';
COMMENT ON COLUMN audit_tree.size IS 'Number of leaves.';
COMMENT ON COLUMN audit_tree.edge IS 'The tiles that are not full yet, by level.';
COMMENT ON COLUMN audit_tree.origins IS 'Names under which heads were signed, oldest first: one for each history.';
COMMENT ON COLUMN audit_tree.stopped_history IS 'No head is signed while this is the history of the database.';
COMMENT ON COLUMN audit_tree.stopped_reason IS 'Why: how the log contradicts what was signed.';


CREATE TABLE audit_tiles (
    level smallint NOT NULL,
    position bigint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT pk_audit_tiles PRIMARY KEY (level, position),
    CONSTRAINT ck_audit_tiles_hashes CHECK (octet_length(hashes) = 8192),
    CONSTRAINT ck_audit_tiles_level CHECK (level BETWEEN 0 AND 7),
    CONSTRAINT ck_audit_tiles_position CHECK (position >= 0)
);

ALTER TABLE audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

COMMENT ON TABLE audit_tiles IS 'Full tiles of the tree over the audit log, 256 hashes each; written once.';
COMMENT ON COLUMN audit_tiles.level IS '0: hashes of records; above: roots of full tiles of the level below.';
COMMENT ON COLUMN audit_tiles.position IS 'Number of the tile on its level, from 0.';
COMMENT ON COLUMN audit_tiles.hashes IS '256 hashes of 32 bytes.';


CREATE TABLE audit_seals (
    size bigint NOT NULL,
    root bytea NOT NULL,
    note text NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_audit_seals PRIMARY KEY (size),
    CONSTRAINT ck_audit_seals_root CHECK (octet_length(root) = 32),
    CONSTRAINT ck_audit_seals_size CHECK (size > 0)
);

COMMENT ON TABLE audit_seals IS 'Heads of the tree over the audit log, as they were signed.';
COMMENT ON COLUMN audit_seals.size IS 'Leaves of the tree: one for each record.';
COMMENT ON COLUMN audit_seals.root IS 'Root of the tree of that size, by RFC 6962.';
COMMENT ON COLUMN audit_seals.note IS 'The head as a signed note (C2SP tlog-checkpoint), with what witnesses signed.';
COMMENT ON COLUMN audit_seals.sealed_at IS 'When the head was signed.';


CREATE TABLE audit_sinks (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(63) NOT NULL,
    kind varchar(10) NOT NULL,
    format varchar(20) NOT NULL DEFAULT 'ocsf',
    address varchar(2048) NOT NULL,
    options jsonb NOT NULL DEFAULT '{}',
    required boolean NOT NULL DEFAULT false,
    secrets bytea,
    data_key bytea,
    key_id varchar(64),
    position bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    status varchar(10) NOT NULL DEFAULT 'pending',
    reason varchar(50),
    message text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    failing_since timestamptz,
    last_delivered_at timestamptz,
    lease_owner varchar(100),
    lease_epoch bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by bigint,
    CONSTRAINT pk_audit_sinks PRIMARY KEY (id),
    CONSTRAINT uq_audit_sinks_name UNIQUE (name),
    CONSTRAINT uq_audit_sinks_uid UNIQUE (uid),
    CONSTRAINT fk_audit_sinks_created_by FOREIGN KEY (created_by) REFERENCES users(id),
    CONSTRAINT fk_audit_sinks_key_id FOREIGN KEY (key_id) REFERENCES encryption_keys(key_id),
    CONSTRAINT ck_audit_sinks_attempts CHECK (attempts >= 0),
    CONSTRAINT ck_audit_sinks_options CHECK (jsonb_typeof(options) = 'object'),
    CONSTRAINT ck_audit_sinks_position CHECK (position >= 0),
    CONSTRAINT ck_audit_sinks_secrets_key CHECK (secrets IS NULL OR key_id IS NOT NULL),
    CONSTRAINT ck_audit_sinks_skipped CHECK (skipped >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE INDEX idx_audit_sinks_created_by ON audit_sinks (created_by);
CREATE INDEX idx_audit_sinks_key_id ON audit_sinks (key_id);
CREATE UNIQUE INDEX uq_audit_sinks_file ON audit_sinks (address) WHERE kind = 'file';

COMMENT ON TABLE audit_sinks IS
    'Where records of the audit log are sent, each with the sequence of the last one that it has acknowledged.';
COMMENT ON COLUMN audit_sinks.id IS 'Key of the row inside the database.';
COMMENT ON COLUMN audit_sinks.uid IS 'Id of the resource in the API.';
COMMENT ON COLUMN audit_sinks.name IS 'Name of the sink.';
COMMENT ON COLUMN audit_sinks.kind IS 'Kind of receiver.';
COMMENT ON COLUMN audit_sinks.format IS 'Format of the records that are sent.';
COMMENT ON COLUMN audit_sinks.address IS 'URL, file or host and port of the receiver.';
COMMENT ON COLUMN audit_sinks.options IS 'Options of the kind, such as certificates or sizes of files.';
COMMENT ON COLUMN audit_sinks.required IS 'Whether records that it does not have are kept beyond their retention.';
COMMENT ON COLUMN audit_sinks.secrets IS
    'AES-256-GCM ciphertext made by the application: headers and keys; null where there are none.';
COMMENT ON COLUMN audit_sinks.data_key IS 'The row''s data key, wrapped by the key-encryption key that key_id names.';
COMMENT ON COLUMN audit_sinks.key_id IS 'Key-encryption key that wraps data_key.';
COMMENT ON COLUMN audit_sinks.position IS 'Sequence of the last record that was acknowledged.';
COMMENT ON COLUMN audit_sinks.skipped IS 'Records that retention dropped before they could be sent.';
COMMENT ON COLUMN audit_sinks.status IS 'Whether records arrive.';
COMMENT ON COLUMN audit_sinks.reason IS 'Reason of the last failure, a word.';
COMMENT ON COLUMN audit_sinks.message IS 'Reason of the last failure, in words.';
COMMENT ON COLUMN audit_sinks.attempts IS 'Failed attempts in a row.';
COMMENT ON COLUMN audit_sinks.next_attempt_at IS 'When a server may try again.';
COMMENT ON COLUMN audit_sinks.failing_since IS 'Since when attempts fail; null: they do not.';
COMMENT ON COLUMN audit_sinks.last_delivered_at IS 'When records were last acknowledged.';
COMMENT ON COLUMN audit_sinks.lease_owner IS 'Server that sends; null: none.';
COMMENT ON COLUMN audit_sinks.lease_epoch IS 'Raised by each lease; the cursor is written under it.';
COMMENT ON COLUMN audit_sinks.leased_until IS 'When the lease ends.';
COMMENT ON COLUMN audit_sinks.created_at IS 'When the row was created.';
COMMENT ON COLUMN audit_sinks.created_by IS 'User who created it; null: the system.';
