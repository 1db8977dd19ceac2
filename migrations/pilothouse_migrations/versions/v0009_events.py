"""Events in commit order, and `append_changes`, the one writer of events and of the audit chain.

`stream_head` is one row, and its lock is the only thing that orders revisions and the chain. `append_changes` is
the last thing a transaction does: it takes the lock by a statement of its own and inserts after that (in one
statement it gave duplicate numbers), so numbers follow the order of commits and a rollback leaves no gap. A cursor
over a sequence would lose events: number 2 can commit before number 1.

The lock is held until the commit is durable. That bounds the rate of mutations (about 3,000 a second were
measured), not of reads.

Chain: chain_hash(n) = sha256(chain_hash(n-1) || n as 8 bytes, big-endian || record_hash(n)), chain_hash(0) = 32
zero bytes.

`append_changes` runs as the owner, because no login may write the log or the events by itself. So it refuses what
row-level security would have refused: from the app role, records in another user's name and events of namespaces
that the caller does not reach.

`history_id` names this line of events. Restore and promotion call `begin_new_history`, and resume tokens of the old
line are refused.
"""

from __future__ import annotations

from pilothouse_migrations.statements import belongs_to_namespace, row_level_security, run

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE TABLE stream_head (
    id smallint NOT NULL DEFAULT 1,
    history_id uuid NOT NULL DEFAULT gen_random_uuid(),
    revision bigint NOT NULL DEFAULT 0,
    oldest_revision bigint NOT NULL DEFAULT 0,
    audit_sequence bigint NOT NULL DEFAULT 0,
    audit_chain_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    CONSTRAINT pk_stream_head PRIMARY KEY (id),
    CONSTRAINT ck_stream_head_id CHECK (id = 1),
    CONSTRAINT ck_stream_head_audit_chain_hash CHECK (octet_length(audit_chain_hash) = 32),
    CONSTRAINT ck_stream_head_oldest_revision CHECK (oldest_revision <= revision + 1)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

COMMENT ON TABLE stream_head IS
    'One row: the newest revision and the head of the audit chain. Its lock orders both.';
COMMENT ON COLUMN stream_head.oldest_revision IS 'Watch horizon: every event from this revision on is kept.';
COMMENT ON COLUMN stream_head.history_id IS
    'Changes on restore and on promotion, so that old resume tokens are refused.';

INSERT INTO stream_head (id) VALUES (1);

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
    CONSTRAINT pk_events PRIMARY KEY (revision),
    CONSTRAINT ck_events_kind CHECK (kind IN ('added', 'modified', 'deleted'))
) PARTITION BY RANGE (revision);

COMMENT ON TABLE events IS 'One row per change of a watched resource, numbered in commit order.';
COMMENT ON COLUMN events.namespace_id IS
    'Namespace at the time; not a foreign key, because a watcher must learn of the deletion of what is gone.';
COMMENT ON COLUMN events.message IS 'The resource after the change, serialised once for all watchers.';
COMMENT ON COLUMN events.labels_before IS
    'With status_before: a watcher whose filter the resource leaves is told that it is deleted.';

CREATE INDEX idx_events_resource ON events (resource_type, resource_id, revision);
CREATE INDEX idx_events_namespace_id ON events (namespace_id, revision);
CREATE INDEX idx_events_created_at ON events USING brin (created_at);

SELECT create_revision_partitions('events', 0, 3);
""")
    row_level_security("stream_head")
    belongs_to_namespace("events", privileges="SELECT")
    run("""
REVOKE INSERT, UPDATE, DELETE ON events FROM @system@;
CREATE POLICY stream_head_visible_policy ON stream_head FOR SELECT TO @app@ USING (true);
GRANT SELECT ON stream_head TO @app@, @system@;
""")
    define_append_changes()
    run("""
CREATE FUNCTION begin_new_history() RETURNS uuid
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$
    UPDATE public.stream_head SET history_id = gen_random_uuid() WHERE id = 1 RETURNING history_id
    $$;

COMMENT ON FUNCTION begin_new_history() IS 'Starts a new line of events after a restore or a promotion.';
""")


def define_check(create: str) -> None:
    """Defines the check as this release has it; a later migration comes back to it on its way down."""
    run(f"""
{create} check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller bigint := public.app_user_id();
        reachable bigint[];
    BEGIN
        IF EXISTS (SELECT FROM jsonb_array_elements(p_audit) AS a
                   WHERE (a ->> 'user_id')::bigint IS DISTINCT FROM caller)
            OR (p_idempotency ->> 'user_id')::bigint <> caller
            OR (p_operation ->> 'user_id')::bigint <> caller THEN
            RAISE EXCEPTION 'the caller may append changes in their own name only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF p_events = '[]' OR public.app_sees_all() THEN
            RETURN;
        END IF;
        reachable := public.app_namespace_ids();
        IF EXISTS (SELECT FROM jsonb_array_elements(p_events) AS e
                   WHERE NOT coalesce((e ->> 'namespace_id')::bigint = ANY (reachable), false)) THEN
            RAISE EXCEPTION 'the caller may append events of reachable namespaces only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END
    $$;
""")


def define_append_changes() -> None:
    """Defines the function as this release has it; later migrations come back to it on their way down."""
    define_check("CREATE FUNCTION")
    run("""
CREATE FUNCTION append_changes(
    p_audit jsonb DEFAULT '[]', p_events jsonb DEFAULT '[]',
    p_operation jsonb DEFAULT NULL, p_idempotency jsonb DEFAULT NULL,
    OUT first_revision bigint, OUT last_revision bigint,
    OUT first_sequence bigint, OUT last_sequence bigint, OUT history_id uuid)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
        head public.stream_head;
        chain bytea[] := '{}';
        link bytea;
        record_count integer;
        event_count integer;
    BEGIN
        p_audit := coalesce(nullif(p_audit, 'null'), '[]');
        p_events := coalesce(nullif(p_events, 'null'), '[]');
        p_operation := nullif(p_operation, 'null');
        p_idempotency := nullif(p_idempotency, 'null');
        record_count := jsonb_array_length(p_audit);
        event_count := jsonb_array_length(p_events);
        IF caller_role = '@app@' THEN
            PERFORM public.check_appended_changes(p_audit, p_events, p_operation, p_idempotency);
        END IF;
        IF p_operation IS NOT NULL THEN
            INSERT INTO public.operations
                (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id, created_at)
            SELECT o.operation_id, o.user_id, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id,
                   coalesce(o.created_at, now())
            FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
            ON CONFLICT (operation_id) DO NOTHING;
        END IF;
        IF p_idempotency IS NOT NULL THEN
            INSERT INTO public.idempotency_keys
                (user_id, request_id, method, request_hmac, response, operation_id, expires_at)
            SELECT k.user_id, k.request_id, k.method, decode(k.request_hmac, 'base64'), decode(k.response, 'base64'),
                   k.operation_id, coalesce(k.expires_at, now() + interval '24 hours')
            FROM jsonb_to_record(p_idempotency) AS k(user_id bigint, request_id uuid, method text, request_hmac text,
                response text, operation_id uuid, expires_at timestamptz);
        END IF;

        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
        history_id := head.history_id;
        last_revision := head.revision + event_count;
        last_sequence := head.audit_sequence + record_count;
        IF record_count > 0 THEN
            first_sequence := head.audit_sequence + 1;
            link := head.audit_chain_hash;
            FOR position IN 1 .. record_count LOOP
                link := sha256(link || int8send(head.audit_sequence + position)
                    || decode(p_audit -> (position - 1) ->> 'record_hash', 'hex'));
                chain[position] := link;
            END LOOP;
            INSERT INTO public.operation_logs
                (operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
                 request_method, request_path, request_body, request_headers, client_ip, user_agent, status_code,
                 response_body, duration_ms, error_code, error_message, started_at, completed_at, metadata,
                 stream_id, sequence, record_hash, chain_hash)
            SELECT coalesce(r.operation_id, gen_random_uuid()), r.user_id, r.username, r.action, r.resource_type,
                   r.resource_id, r.resource_name, r.namespace_id, r.request_method, r.request_path, r.request_body,
                   r.request_headers, r.client_ip, r.user_agent, r.status_code, r.response_body, r.duration_ms,
                   r.error_code, r.error_message, coalesce(r.started_at, now()), r.completed_at,
                   coalesce(r.metadata, '{}'), r.stream_id, head.audit_sequence + r.position,
                   decode(r.record_hash, 'hex'), chain[r.position]
            FROM ROWS FROM (jsonb_to_recordset(p_audit) AS (
                     operation_id uuid, user_id bigint, username text, action text, resource_type text,
                     resource_id bigint, resource_name text, namespace_id bigint, request_method text,
                     request_path text, request_body jsonb, request_headers jsonb, client_ip text, user_agent text,
                     status_code integer, response_body jsonb, duration_ms integer, error_code text,
                     error_message text, started_at timestamptz, completed_at timestamptz, metadata jsonb,
                     stream_id uuid, record_hash text)) WITH ORDINALITY
                 AS r(operation_id, user_id, username, action, resource_type, resource_id, resource_name,
                     namespace_id, request_method, request_path, request_body, request_headers, client_ip,
                     user_agent, status_code, response_body, duration_ms, error_code, error_message, started_at,
                     completed_at, metadata, stream_id, record_hash, position);
        END IF;
        IF event_count > 0 THEN
            first_revision := head.revision + 1;
            INSERT INTO public.events
                (revision, resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, message,
                 labels, status, labels_before, status_before, operation_id)
            SELECT head.revision + e.position, e.resource_type, e.resource_id, e.resource_uid, e.namespace_id,
                   e.resource_name, e.kind, decode(e.message, 'base64'), coalesce(e.labels, '{}'), e.status,
                   e.labels_before, e.status_before, e.operation_id
            FROM ROWS FROM (jsonb_to_recordset(p_events) AS (
                     resource_type text, resource_id bigint, resource_uid uuid, namespace_id bigint,
                     resource_name text, kind text, message text, labels jsonb, status text, labels_before jsonb,
                     status_before text, operation_id uuid)) WITH ORDINALITY
                 AS e(resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, message, labels,
                     status, labels_before, status_before, operation_id, position);
            PERFORM pg_notify('pilothouse_changes', last_revision::text);
        END IF;
        UPDATE public.stream_head AS h
        SET revision = last_revision, audit_sequence = last_sequence,
            audit_chain_hash = coalesce(link, head.audit_chain_hash)
        WHERE h.id = 1;
    END
    $$;

COMMENT ON FUNCTION check_appended_changes(jsonb, jsonb, jsonb, jsonb) IS
    'What row-level security would refuse of the app role''s changes, were they plain inserts.';
COMMENT ON FUNCTION append_changes(jsonb, jsonb, jsonb, jsonb) IS
    'Appends audit records and events under the lock of the stream head; the last work of a transaction.';

GRANT EXECUTE ON FUNCTION append_changes(jsonb, jsonb, jsonb, jsonb) TO @app@, @system@;
""")


def downgrade() -> None:
    run("""
DROP FUNCTION begin_new_history();
DROP FUNCTION append_changes(jsonb, jsonb, jsonb, jsonb);
DROP FUNCTION check_appended_changes(jsonb, jsonb, jsonb, jsonb);
DROP TABLE events;
DROP TABLE stream_head;
""")
