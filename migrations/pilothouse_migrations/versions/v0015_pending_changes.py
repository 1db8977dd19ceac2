"""Changes are committed side by side, and numbered afterwards in batches: `pending_changes` and the sequencer.

Until now each mutation took the lock of the stream head and held it until its commit was durable, so commits stood
in a row. Now the last statement of a mutation, alone, inserts one row of `pending_changes` (`put_changes`); commits
run side by side, and PostgreSQL groups their flushes. `sequence_changes`, one call in autocommit, then takes the
head's lock, numbers what it sees in the order of the pending ids, appends it to the log and the events, and returns
the events, so that the calling server can hand them to its watchers without another read.

Why the order is right. The id is taken by the mutation's last statement, so whoever waited for a row of this
transaction takes a larger one, after its commit; so changes of one object are numbered in the order of their commits,
and who saw A committed before it began B is numbered after A. Nothing is written after the id is taken, and nothing
that waits: no foreign key, trigger or deferred constraint stands on the table. All of a transaction is one row.

What is checked where. The domains below hold every constraint of the log and of the events that a single value can
break, so that it is refused in the mutation. What breaks only as it is numbered (there is no such user, no partition
holds the time) fails twice alone before it is set aside in `pending_incidents`, with a record that names its hashes;
the others go on. A missing partition of `events` is nobody's fault: everything waits for it.

The floor. Dead rows of the index are searched again by each pass while an old snapshot keeps them. Pass k notes the
last id that was given, v; pass k+1 notes its own transaction id for that v; once a pass took everything it saw, by a
snapshot in which no transaction older than that runs, nothing below v can appear any more, and no search goes there.
(`put_changes` assigns the transaction's id before the row's.)

`append_changes` keeps its name and form for servers of the release before: it puts and numbers in one transaction.
"""

from __future__ import annotations

from pilothouse_migrations import incidents
from pilothouse_migrations.statements import row_level_security, run
from pilothouse_migrations.versions import v0009_events

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_RECORD_COLUMNS = (
    "operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id, "
    "request_method, request_path, request_body, request_headers, client_ip, user_agent, status_code, "
    "response_body, duration_ms, error_code, error_message, started_at, completed_at, metadata, stream_id"
)


def upgrade() -> None:
    _tables()
    define_put_changes()
    _sequence()
    _append()


def _tables() -> None:
    run("""
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
    CONSTRAINT ck_events_kind
        CHECK ((VALUE).kind IS NOT NULL AND (VALUE).kind IN ('added', 'modified', 'deleted'));

COMMENT ON DOMAIN pending_record IS 'A record of the audit log before it has its place; its hash stands beside it.';
COMMENT ON DOMAIN pending_event IS 'An event before it has its revision; its message stands beside it.';

CREATE DOMAIN pending_hash AS bytea NOT NULL
    CONSTRAINT ck_operation_logs_record_hash CHECK (octet_length(VALUE) = 32);

COMMENT ON DOMAIN pending_hash IS 'SHA-256 of a record''s canonical JSON.';

CREATE TABLE pending_changes (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    records pending_record[] NOT NULL,
    record_hashes pending_hash[] NOT NULL,
    events pending_event[] NOT NULL,
    messages bytea[] NOT NULL,
    failures smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_pending_changes PRIMARY KEY (id),
    CONSTRAINT ck_pending_changes_record_hashes CHECK (cardinality(record_hashes) = cardinality(records)),
    CONSTRAINT ck_pending_changes_messages
        CHECK (cardinality(messages) = cardinality(events) AND array_position(messages, NULL) IS NULL)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

COMMENT ON TABLE pending_changes IS
    'What is committed and not yet numbered: one row a transaction, for milliseconds.';
COMMENT ON COLUMN pending_changes.id IS
    'Taken by the last statement of the transaction; the order of the log and of the events.';
COMMENT ON COLUMN pending_changes.failures IS 'How often it could not be numbered alone.';

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
COMMENT ON COLUMN pending_incidents.incident_sequence IS 'The record of the audit log that tells of it.';

ALTER TABLE stream_head ADD COLUMN event_mark bytea NOT NULL DEFAULT '\\x0000000000000000';
ALTER TABLE stream_head ADD COLUMN pending_floor bigint NOT NULL DEFAULT 0;
ALTER TABLE stream_head ADD COLUMN floor_candidate bigint NOT NULL DEFAULT 0;
ALTER TABLE stream_head ADD COLUMN floor_transaction xid8;

COMMENT ON COLUMN stream_head.event_mark IS 'The random bytes of the newest event.';
COMMENT ON COLUMN stream_head.pending_floor IS 'No pending id at or below it can appear any more.';
COMMENT ON COLUMN stream_head.floor_candidate IS
    'The next floor, once every transaction before floor_transaction is over.';

ALTER TABLE events ADD COLUMN pending_id bigint;
ALTER TABLE events ADD COLUMN mark bytea;

COMMENT ON COLUMN events.pending_id IS
    'The pending row it was; a first state that saw that row unnumbered passes the event over.';
COMMENT ON COLUMN events.mark IS
    'Eight random bytes that only this event has: a token that names others is of another history.';
""")
    row_level_security("pending_changes")
    row_level_security("pending_incidents")
    run("""
GRANT SELECT (id, created_at) ON pending_changes TO @system@;
GRANT SELECT (id, sqlstate, set_aside_at) ON pending_incidents TO @system@;
""")


def define_put_changes() -> None:
    """Defines the function as this release has it; later migrations come back to it on their way down."""
    run("""
CREATE FUNCTION put_changes(
    p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[],
    p_operation jsonb DEFAULT NULL, p_idempotency jsonb DEFAULT NULL)
    RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
        put_id bigint;
    BEGIN
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
        -- The transaction has its id before the row takes its own: the floor rests on that.
        PERFORM pg_current_xact_id();
        INSERT INTO public.pending_changes (records, record_hashes, events, messages)
        VALUES (
            ARRAY(SELECT r::public.pending_record
                  FROM jsonb_populate_recordset(NULL::public.pending_record_row, p_audit) AS r),
            p_hashes,
            ARRAY(SELECT e::public.pending_event
                  FROM jsonb_populate_recordset(NULL::public.pending_event_row, p_events) AS e),
            p_messages)
        RETURNING id INTO put_id;
        RETURN put_id;
    END
    $$;

COMMENT ON FUNCTION put_changes(jsonb, bytea[], jsonb, bytea[], jsonb, jsonb) IS
    'The last statement of a mutation: its records and events, to be numbered once it is committed.';

GRANT EXECUTE ON FUNCTION put_changes(jsonb, bytea[], jsonb, bytea[], jsonb, jsonb) TO @app@, @system@;
""")


def _sequence() -> None:
    run(f"""
CREATE FUNCTION number_pending(p_ids bigint[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        head public.stream_head;
        hashes bytea[];
        chain bytea[] := '{{}}';
        link bytea;
        event_count bigint;
        mark bytea;
    BEGIN
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
        SELECT coalesce(array_agg(h.hash ORDER BY p.id, h.position), '{{}}'), count(DISTINCT p.id) INTO hashes
        FROM public.pending_changes AS p, unnest(p.record_hashes) WITH ORDINALITY AS h(hash, position)
        WHERE p.id = ANY (p_ids);
        link := head.audit_chain_hash;
        FOR position IN 1 .. cardinality(hashes) LOOP
            link := sha256(link || int8send(head.audit_sequence + position) || hashes[position]);
            chain[position] := link;
        END LOOP;
        INSERT INTO public.operation_logs ({_RECORD_COLUMNS}, sequence, record_hash, chain_hash)
        SELECT coalesce(n.operation_id, gen_random_uuid()), n.user_id, n.username, n.action, n.resource_type,
               n.resource_id, n.resource_name, n.namespace_id, n.request_method, n.request_path, n.request_body,
               n.request_headers, n.client_ip, n.user_agent, n.status_code, n.response_body, n.duration_ms,
               n.error_code, n.error_message, coalesce(n.started_at, n.created_at), n.completed_at,
               coalesce(n.metadata, '{{}}'), n.stream_id, head.audit_sequence + n.number, hashes[n.number],
               chain[n.number]
        FROM (SELECT row_number() OVER (ORDER BY p.id, r.position) AS number, p.created_at, r.*
              FROM public.pending_changes AS p, unnest(p.records) WITH ORDINALITY AS
                  r({_RECORD_COLUMNS}, position)
              WHERE p.id = ANY (p_ids)) AS n;
        INSERT INTO public.events
            (revision, resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, message, labels,
             status, labels_before, status_before, operation_id, pending_id, mark)
        SELECT head.revision + n.number, n.resource_type, n.resource_id, n.resource_uid, n.namespace_id,
               n.resource_name, n.kind, n.message, coalesce(n.labels, '{{}}'), n.status, n.labels_before,
               n.status_before, n.operation_id, n.pending_id, substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8)
        FROM (SELECT row_number() OVER (ORDER BY p.id, e.position) AS number, p.id AS pending_id,
                     p.messages[e.position] AS message, e.*
              FROM public.pending_changes AS p, unnest(p.events) WITH ORDINALITY AS
                  e(resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, labels, status,
                    labels_before, status_before, operation_id, position)
              WHERE p.id = ANY (p_ids)) AS n;
        GET DIAGNOSTICS event_count = ROW_COUNT;
        IF event_count > 0 THEN
            SELECT e.mark INTO mark FROM public.events AS e WHERE e.revision = head.revision + event_count;
        END IF;
        UPDATE public.stream_head AS h
        SET revision = head.revision + event_count,
            audit_sequence = head.audit_sequence + cardinality(hashes),
            audit_chain_hash = link,
            event_mark = coalesce(mark, head.event_mark)
        WHERE h.id = 1;
        DELETE FROM public.pending_changes AS p WHERE p.id = ANY (p_ids);
        -- Partitions of events are asked for at half of one: two million revisions are not many minutes.
        IF head.revision / 500000 <> (head.revision + event_count) / 500000 THEN
            PERFORM pg_notify('pilothouse_partitions', '');
        END IF;
    END
    $$;
""")
    run(incidents.SET_ASIDE)
    run("""
CREATE FUNCTION number_visible(
    p_limit integer, p_own bigint DEFAULT NULL,
    OUT numbered bigint[], OUT revision_before bigint, OUT sequence_before bigint, OUT own_offset bigint,
    OUT aside integer, OUT more boolean)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        head public.stream_head;
        waiting text := current_setting('lock_timeout');
        taken bigint[];
        oldest_running xid8;
        one bigint;
        state text;
        broken text;
        relation text;
    BEGIN
        -- It waits for the head, however long, and after that for nothing.
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
        PERFORM set_config('lock_timeout', '1s', true);
        numbered := '{}';
        aside := 0;
        revision_before := head.revision;
        sequence_before := head.audit_sequence;
        -- A statement of its own sees whatever was committed before the lock was given, and says who ran then.
        SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}'), sum(p.records) FILTER (WHERE p.id < p_own),
               pg_snapshot_xmin(pg_current_snapshot())
        INTO taken, own_offset, oldest_running
        FROM (SELECT q.id, cardinality(q.records) AS records FROM public.pending_changes AS q
              WHERE q.id > head.pending_floor ORDER BY q.id LIMIT p_limit) AS p;
        more := cardinality(taken) = p_limit;
        IF cardinality(taken) > 0 THEN
            BEGIN
                PERFORM public.number_pending(taken);
                numbered := taken;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                -- One by one, as far as they go. What fails for the first time holds those behind it until the next
                -- pass, so that none of the same object goes past it.
                FOREACH one IN ARRAY taken LOOP
                    BEGIN
                        PERFORM public.number_pending(ARRAY[one]);
                        numbered := numbered || one;
                    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, broken = CONSTRAINT_NAME,
                            relation = TABLE_NAME;
                        IF state = '23514' AND broken = '' AND relation = 'events' THEN
                            RAISE EXCEPTION 'no partition of events holds the next revision'
                                USING ERRCODE = 'configuration_limit_exceeded';
                        END IF;
                        IF (SELECT p.failures FROM public.pending_changes AS p WHERE p.id = one) > 0 THEN
                            PERFORM public.set_aside(one, state, coalesce(nullif(broken, ''), relation));
                            aside := aside + 1;
                        ELSE
                            UPDATE public.pending_changes AS p SET failures = 1 WHERE p.id = one;
                            more := true;
                            EXIT;
                        END IF;
                    END;
                END LOOP;
            END;
            -- Only by a transaction that had no id before the lock: an older one would vouch for younger ones.
            IF p_own IS NULL THEN
                PERFORM public.raise_floor(numbered = taken AND NOT more, oldest_running);
            END IF;
            IF (SELECT h.revision > head.revision FROM public.stream_head AS h WHERE h.id = 1) THEN
                PERFORM pg_notify('pilothouse_changes',
                    (SELECT h.revision FROM public.stream_head AS h WHERE h.id = 1)::text);
            END IF;
        END IF;
        PERFORM set_config('lock_timeout', waiting, true);
    END
    $$;

CREATE FUNCTION raise_floor(p_took_all boolean, p_oldest_running xid8)
    RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    UPDATE public.stream_head
    SET pending_floor = CASE WHEN passed THEN floor_candidate ELSE pending_floor END,
        floor_candidate = CASE WHEN passed OR floor_candidate = 0
            THEN (SELECT last_value FROM public.pending_changes_id_seq) ELSE floor_candidate END,
        floor_transaction = CASE WHEN passed OR floor_candidate = 0 THEN NULL
            ELSE coalesce(floor_transaction, pg_current_xact_id()) END
    FROM (SELECT p_took_all
              AND coalesce(p_oldest_running >= h.floor_transaction, false) AS passed
          FROM public.stream_head AS h WHERE h.id = 1) AS state
    WHERE id = 1
    $$;

CREATE FUNCTION sequence_changes(p_limit integer DEFAULT 200)
    RETURNS TABLE (revision bigint, resource_type text, namespace_id bigint, resource_name text, kind text,
        message bytea, labels jsonb, status text, labels_before jsonb, status_before text, pending_id bigint,
        mark bytea, audit_sequence bigint, history_id uuid, more boolean, aside integer,
        oldest_seconds double precision)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_column
    DECLARE
        pass record;
        set_aside integer := 0;
        goes_on boolean := false;
    BEGIN
        IF EXISTS (SELECT FROM public.pending_changes AS p
                   WHERE p.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)) THEN
            SELECT * INTO STRICT pass FROM public.number_visible(p_limit);
            set_aside := pass.aside;
            goes_on := pass.more;
            RETURN QUERY
            SELECT e.revision, e.resource_type::text, e.namespace_id, e.resource_name::text, e.kind::text, e.message,
                   e.labels, e.status::text, e.labels_before, e.status_before::text, e.pending_id, e.mark,
                   NULL::bigint, NULL::uuid, NULL::boolean, NULL::integer, NULL::double precision
            FROM public.events AS e WHERE e.revision > pass.revision_before ORDER BY e.revision;
        END IF;
        RETURN QUERY
        SELECT h.revision, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::bytea, NULL::jsonb, NULL::text,
               NULL::jsonb, NULL::text, NULL::bigint, h.event_mark, h.audit_sequence, h.history_id,
               goes_on, set_aside,
               coalesce(extract(epoch FROM clock_timestamp() - o.created_at), 0)::double precision
        FROM public.stream_head AS h
        LEFT JOIN LATERAL (SELECT p.created_at FROM public.pending_changes AS p WHERE p.id > h.pending_floor
                           ORDER BY p.id LIMIT 1) AS o ON true
        WHERE h.id = 1;
    END
    $$;

CREATE FUNCTION pending_event_ids(p_most integer DEFAULT 257)
    RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}')
    FROM (SELECT c.id FROM public.pending_changes AS c
          WHERE c.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)
            AND cardinality(c.events) > 0
          ORDER BY c.id LIMIT p_most) AS p
    $$;

CREATE FUNCTION event_mark(p_revision bigint)
    RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT CASE WHEN h.revision = p_revision THEN h.event_mark
        ELSE (SELECT coalesce(e.mark, decode('0000000000000000', 'hex')) FROM public.events AS e
              WHERE e.revision = p_revision) END
    FROM public.stream_head AS h WHERE h.id = 1
    $$;

CREATE FUNCTION record_mark(p_sequence bigint)
    RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT substring(CASE WHEN h.audit_sequence = p_sequence THEN h.audit_chain_hash
        ELSE (SELECT l.chain_hash FROM public.operation_logs AS l WHERE l.sequence = p_sequence) END FROM 1 FOR 8)
    FROM public.stream_head AS h WHERE h.id = 1
    $$;

COMMENT ON FUNCTION pending_event_ids(integer) IS
    'Ids of the pending rows with events that a snapshot sees: their events are in its rows already.';
COMMENT ON FUNCTION event_mark(bigint) IS
    'The random bytes of an event; zeros for one of the releases before, null where it is not kept.';
COMMENT ON FUNCTION record_mark(bigint) IS 'Eight bytes that only this record has; null where it is not kept.';
GRANT EXECUTE ON FUNCTION pending_event_ids(integer), event_mark(bigint), record_mark(bigint) TO @app@, @system@;
COMMENT ON FUNCTION number_pending(bigint[]) IS
    'Numbers these pending rows, in the order of their ids, under the lock of the head that the caller holds.';
COMMENT ON FUNCTION set_aside(bigint, text, text) IS
    'Sets a pending row aside that cannot be numbered, with a record that names the hashes of its records.';
COMMENT ON FUNCTION number_visible(integer, bigint) IS
    'One pass: takes the lock of the head, then numbers the pending rows that are visible.';
COMMENT ON FUNCTION raise_floor(boolean, xid8) IS 'Moves the floor below which no search for pending rows goes.';
COMMENT ON FUNCTION sequence_changes(integer) IS
    'Numbers what is pending; returns the events that it numbered, and last a row of the head (resource_type null).';

GRANT EXECUTE ON FUNCTION sequence_changes(integer) TO @system@;
""")


def _append() -> None:
    run("""
CREATE OR REPLACE FUNCTION append_changes(
    p_audit jsonb DEFAULT '[]', p_events jsonb DEFAULT '[]',
    p_operation jsonb DEFAULT NULL, p_idempotency jsonb DEFAULT NULL,
    OUT first_revision bigint, OUT last_revision bigint,
    OUT first_sequence bigint, OUT last_sequence bigint, OUT history_id uuid)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        put_id bigint;
        pass record;
    BEGIN
        p_audit := coalesce(nullif(p_audit, 'null'), '[]');
        p_events := coalesce(nullif(p_events, 'null'), '[]');
        put_id := public.put_changes(
            p_audit,
            ARRAY(SELECT decode(a.value ->> 'record_hash', 'hex')
                  FROM jsonb_array_elements(p_audit) WITH ORDINALITY AS a(value, position) ORDER BY a.position),
            p_events,
            ARRAY(SELECT decode(e.value ->> 'message', 'base64')
                  FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e(value, position) ORDER BY e.position),
            nullif(p_operation, 'null'), nullif(p_idempotency, 'null'));
        LOOP
            SELECT * INTO STRICT pass FROM public.number_visible(200, put_id);
            EXIT WHEN put_id = ANY (pass.numbered);
            -- What cannot be numbered fails its own transaction here, which is still open.
            IF (SELECT p.failures FROM public.pending_changes AS p WHERE p.id = put_id) > 0 THEN
                PERFORM public.number_pending(ARRAY[put_id]);
            END IF;
        END LOOP;
        SELECT h.revision, h.history_id INTO STRICT last_revision, history_id
        FROM public.stream_head AS h WHERE h.id = 1;
        last_sequence := pass.sequence_before + coalesce(pass.own_offset, 0) + jsonb_array_length(p_audit);
        IF jsonb_array_length(p_audit) > 0 THEN
            first_sequence := last_sequence - jsonb_array_length(p_audit) + 1;
        END IF;
        IF jsonb_array_length(p_events) > 0 THEN
            SELECT min(e.revision), max(e.revision) INTO STRICT first_revision, last_revision
            FROM public.events AS e WHERE e.revision > pass.revision_before AND e.pending_id = put_id;
        END IF;
    END
    $$;

COMMENT ON FUNCTION append_changes(jsonb, jsonb, jsonb, jsonb) IS
    'As the release before calls it: puts and numbers at once, under the lock of the head until the commit.';
""")


def downgrade() -> None:
    # Nothing pending is lost: it is numbered first.
    run("""
DO $$
BEGIN
    WHILE EXISTS (SELECT FROM public.pending_changes) LOOP
        PERFORM public.number_visible(1000);
    END LOOP;
END
$$;

DROP FUNCTION append_changes(jsonb, jsonb, jsonb, jsonb);
DROP FUNCTION check_appended_changes(jsonb, jsonb, jsonb, jsonb);
DROP FUNCTION sequence_changes(integer);
DROP FUNCTION record_mark(bigint);
DROP FUNCTION event_mark(bigint);
DROP FUNCTION pending_event_ids(integer);
DROP FUNCTION raise_floor(boolean, xid8);
DROP FUNCTION number_visible(integer, bigint);
DROP FUNCTION set_aside(bigint, text, text);
DROP FUNCTION number_pending(bigint[]);
DROP FUNCTION put_changes(jsonb, bytea[], jsonb, bytea[], jsonb, jsonb);
ALTER TABLE events DROP COLUMN mark;
ALTER TABLE events DROP COLUMN pending_id;
ALTER TABLE stream_head DROP COLUMN floor_transaction;
ALTER TABLE stream_head DROP COLUMN floor_candidate;
ALTER TABLE stream_head DROP COLUMN pending_floor;
ALTER TABLE stream_head DROP COLUMN event_mark;
DROP TABLE pending_incidents;
DROP TABLE pending_changes;
DROP DOMAIN pending_hash;
DROP DOMAIN pending_event;
DROP TYPE pending_event_row;
DROP DOMAIN pending_record;
DROP TYPE pending_record_row;
""")
    v0009_events.define_append_changes()
