-- The elements of pending_changes: records and events that have no number yet. The domains hold every constraint of
-- operation_logs and events that a single value can break, under the names that those tables give them, so that such
-- a value is refused in the mutation.
CREATE TYPE pending_record_row AS (
    operation_id uuid,
    user_id bigint,
    username varchar(50),
    action varchar(50),
    resource_type varchar(50),
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
    started_at timestamptz,
    completed_at timestamptz,
    metadata jsonb,
    stream_id uuid
);

CREATE DOMAIN pending_record AS pending_record_row
    CONSTRAINT ck_operation_logs_action CHECK ((VALUE).action IS NOT NULL)
    CONSTRAINT ck_operation_logs_resource_type CHECK ((VALUE).resource_type IS NOT NULL)
    CONSTRAINT ck_operation_logs_request_method CHECK ((VALUE).request_method IN ('UNARY', 'STREAM'))
    CONSTRAINT ck_operation_logs_status_code CHECK ((VALUE).status_code BETWEEN 100 AND 599)
    CONSTRAINT ck_operation_logs_duration_ms CHECK ((VALUE).duration_ms >= 0);

CREATE TYPE pending_event_row AS (
    resource_type varchar(50),
    resource_id bigint,
    resource_uid uuid,
    namespace_id bigint,
    resource_name varchar(253),
    kind varchar(10),
    labels jsonb,
    status varchar(20),
    labels_before jsonb,
    status_before varchar(20),
    operation_id uuid
);

CREATE DOMAIN pending_event AS pending_event_row
    CONSTRAINT ck_events_resource_type CHECK ((VALUE).resource_type IS NOT NULL)
    CONSTRAINT ck_events_resource_id CHECK ((VALUE).resource_id IS NOT NULL)
    CONSTRAINT ck_events_resource_name CHECK ((VALUE).resource_name IS NOT NULL)
    CONSTRAINT ck_events_kind CHECK ((VALUE).kind IS NOT NULL);

COMMENT ON DOMAIN pending_record IS 'A record of the audit log before it has its place; its hash stands beside it.';
COMMENT ON DOMAIN pending_event IS 'An event before it has its revision; its message stands beside it.';

CREATE DOMAIN pending_hash AS bytea NOT NULL
    CONSTRAINT ck_operation_logs_record_hash CHECK (octet_length(VALUE) = 32);

COMMENT ON DOMAIN pending_hash IS 'SHA-256 of a record''s canonical JSON.';
