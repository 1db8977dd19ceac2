-- Changes are committed side by side as rows of pending_changes and numbered afterwards; the function number_visible
-- has the argument. A cursor over a sequence would lose events: number 2 can commit before number 1.

CREATE TABLE stream_head (
    id smallint NOT NULL DEFAULT 1,
    history_id uuid NOT NULL DEFAULT gen_random_uuid(),
    revision bigint NOT NULL DEFAULT 0,
    oldest_revision bigint NOT NULL DEFAULT 0,
    audit_sequence bigint NOT NULL DEFAULT 0,
    record_mark bytea NOT NULL DEFAULT '\x0000000000000000',
    event_mark bytea NOT NULL DEFAULT '\x0000000000000000',
    pending_floor bigint NOT NULL DEFAULT 0,
    floor_candidate bigint NOT NULL DEFAULT 0,
    floor_transaction xid8,
    CONSTRAINT pk_stream_head PRIMARY KEY (id),
    CONSTRAINT ck_stream_head_id CHECK (id = 1),
    CONSTRAINT ck_stream_head_oldest_revision CHECK (oldest_revision <= revision + 1)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

COMMENT ON TABLE stream_head IS 'One row: the newest revision and the newest record. Its lock orders both.';
COMMENT ON COLUMN stream_head.id IS 'Always 1.';
COMMENT ON COLUMN stream_head.history_id IS
    'Changes on restore and on promotion, so that old resume tokens are refused.';
COMMENT ON COLUMN stream_head.revision IS 'Revision of the newest event.';
COMMENT ON COLUMN stream_head.oldest_revision IS 'Watch horizon: every event from this revision on is kept.';
COMMENT ON COLUMN stream_head.audit_sequence IS 'Sequence of the newest record of the audit log.';
COMMENT ON COLUMN stream_head.record_mark IS 'The random bytes of the newest record of the audit log.';
COMMENT ON COLUMN stream_head.event_mark IS 'The random bytes of the newest event.';
COMMENT ON COLUMN stream_head.pending_floor IS 'No pending id at or below it can appear any more.';
COMMENT ON COLUMN stream_head.floor_candidate IS
    'The next floor, once every transaction before floor_transaction is over.';
COMMENT ON COLUMN stream_head.floor_transaction IS 'Transaction of the pass that noted floor_candidate.';


CREATE TABLE events (
    revision bigint NOT NULL,
    resource_type varchar(50) NOT NULL,
    resource_id bigint NOT NULL,
    resource_uid uuid,
    namespace_id bigint,
    resource_name varchar(253) NOT NULL,
    kind varchar(10) NOT NULL,
    message bytea NOT NULL,
    labels jsonb NOT NULL DEFAULT '{}',
    status varchar(20),
    labels_before jsonb,
    status_before varchar(20),
    operation_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    pending_id bigint,
    mark bytea,
    CONSTRAINT pk_events PRIMARY KEY (revision)
) PARTITION BY RANGE (revision);

CREATE INDEX idx_events_created_at ON events USING brin (created_at);
CREATE INDEX idx_events_namespace_id ON events (namespace_id, revision);
CREATE INDEX idx_events_resource ON events (resource_type, resource_id, revision);

COMMENT ON TABLE events IS 'One row per change of a watched resource, numbered in commit order.';
COMMENT ON COLUMN events.revision IS 'Position in commit order, without gaps.';
COMMENT ON COLUMN events.resource_type IS 'Type of the resource.';
COMMENT ON COLUMN events.resource_id IS 'Id of its row.';
COMMENT ON COLUMN events.resource_uid IS 'Its public id.';
COMMENT ON COLUMN events.namespace_id IS
    'Namespace at the time. No foreign key: a watcher learns of deletions of what is gone.';
COMMENT ON COLUMN events.resource_name IS 'Its name.';
COMMENT ON COLUMN events.kind IS 'added, modified or deleted.';
COMMENT ON COLUMN events.message IS 'The resource after the change, serialised once for all watchers.';
COMMENT ON COLUMN events.labels IS 'Its labels after the change.';
COMMENT ON COLUMN events.status IS 'Its status after the change.';
COMMENT ON COLUMN events.labels_before IS
    'With status_before: a watcher whose filter the resource leaves is told that it is deleted.';
COMMENT ON COLUMN events.status_before IS 'Its status before the change.';
COMMENT ON COLUMN events.operation_id IS 'The operation that changed it.';
COMMENT ON COLUMN events.created_at IS 'When the event was numbered.';
COMMENT ON COLUMN events.pending_id IS
    'The pending row it came from; a first state that showed that row skips the event.';
COMMENT ON COLUMN events.mark IS
    'Eight random bytes that only this event has: a token that names others is of another history.';


CREATE TABLE pending_changes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    records pending_record[] NOT NULL,
    record_hashes pending_hash[] NOT NULL,
    events pending_event[] NOT NULL,
    messages bytea[] NOT NULL,
    failures smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_pending_changes PRIMARY KEY (id),
    CONSTRAINT ck_pending_changes_messages
        CHECK (cardinality(messages) = cardinality(events) AND array_position(messages, NULL) IS NULL),
    CONSTRAINT ck_pending_changes_record_hashes CHECK (cardinality(record_hashes) = cardinality(records))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, toast_tuple_target = 8160);

COMMENT ON TABLE pending_changes IS 'What is committed and not yet numbered: one row a transaction, for milliseconds.';
COMMENT ON COLUMN pending_changes.id IS 'Taken by the last statement of a mutation; it orders the log and the events.';
COMMENT ON COLUMN pending_changes.records IS 'Its records of the audit log.';
COMMENT ON COLUMN pending_changes.record_hashes IS 'Hash of each record.';
COMMENT ON COLUMN pending_changes.events IS 'Its events.';
COMMENT ON COLUMN pending_changes.messages IS 'Message of each event.';
COMMENT ON COLUMN pending_changes.failures IS 'How often it could not be numbered alone.';
COMMENT ON COLUMN pending_changes.created_at IS 'When the row was put.';


CREATE TABLE pending_incidents (
    id bigint NOT NULL,
    records pending_record[] NOT NULL,
    record_hashes pending_hash[] NOT NULL,
    events pending_event[] NOT NULL,
    messages bytea[] NOT NULL,
    created_at timestamptz NOT NULL,
    sqlstate varchar(5) NOT NULL,
    constraint_name text NOT NULL,
    incident_sequence bigint NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_pending_incidents PRIMARY KEY (id)
);

COMMENT ON TABLE pending_incidents IS
    'Changes that could not be numbered, set aside so that the others go on; each has a record in the log.';
COMMENT ON COLUMN pending_incidents.id IS 'Id of the pending row.';
COMMENT ON COLUMN pending_incidents.records IS 'Its records of the audit log.';
COMMENT ON COLUMN pending_incidents.record_hashes IS 'Hash of each record.';
COMMENT ON COLUMN pending_incidents.events IS 'Its events.';
COMMENT ON COLUMN pending_incidents.messages IS 'Message of each event.';
COMMENT ON COLUMN pending_incidents.created_at IS 'When the pending row was put.';
COMMENT ON COLUMN pending_incidents.sqlstate IS 'Error that numbering it raised.';
COMMENT ON COLUMN pending_incidents.constraint_name IS 'Constraint that it broke, or the table.';
COMMENT ON COLUMN pending_incidents.incident_sequence IS 'Sequence of the record that reports it.';
COMMENT ON COLUMN pending_incidents.set_aside_at IS 'When it was set aside.';


CREATE TABLE rendered_messages (
    resource_type varchar(50) NOT NULL,
    resource_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    row_version bigint NOT NULL,
    format integer NOT NULL,
    message bytea NOT NULL,
    CONSTRAINT pk_rendered_messages PRIMARY KEY (resource_type, resource_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE rendered_messages IS
    'What reads of a resource answer, serialised: that part of its message that follows from its own row.';
COMMENT ON COLUMN rendered_messages.resource_type IS 'Type of the resource.';
COMMENT ON COLUMN rendered_messages.resource_id IS 'Id of its row.';
COMMENT ON COLUMN rendered_messages.namespace_id IS 'Its namespace; of a namespace, itself.';
COMMENT ON COLUMN rendered_messages.row_version IS
    'The version of the row that it was rendered from; where the row has another one, it is not shown.';
COMMENT ON COLUMN rendered_messages.format IS
    'Grows with each release that renders more; one that is not the server''s own is not shown.';
COMMENT ON COLUMN rendered_messages.message IS 'The serialised message.';
