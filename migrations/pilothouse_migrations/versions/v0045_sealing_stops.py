"""Sealing of the audit log stops for good where the log contradicts what was signed: `audit_tree.stopped_history`.

A server that finds the log in contradiction to a head it signed, or to the record it knew at a place, writes the
present history there. No server signs a head while that is the history. A person who has looked begins another history
(`pilothouse migrate new-history`), and sealing goes on under its name. A history that a server begins by itself takes
the stop along, so that lowering a counter does not end it.

`begin_new_history` gets `p_tampering`: another record at a known place, in the same database. The history of events
starts over as ever, its record says what was found, and sealing stops.

Heads beyond the end of the log go when a person begins a history: the log was cut, and their sizes will be given again.
The record, and the first head of the new history, name the newest of them.

`origins` are the names under which heads were signed, oldest first: the log's name, with the history's where the
database went back. Each origin has its own keys, since a key bears the name of its log.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0045"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE audit_tree
    ADD COLUMN origins text[] NOT NULL DEFAULT '{}',
    ADD COLUMN stopped_history uuid,
    ADD COLUMN stopped_reason text;

COMMENT ON COLUMN audit_tree.origins IS 'Names under which heads were signed, oldest first: one for each history.';
COMMENT ON COLUMN audit_tree.stopped_history IS 'No head is signed while this is the history of the database.';
COMMENT ON COLUMN audit_tree.stopped_reason IS 'Why: what of the log contradicts what was signed or known.';

UPDATE audit_tree
SET origins = ARRAY(
    SELECT split_part(s.note, chr(10), 1) FROM audit_seals AS s
    GROUP BY split_part(s.note, chr(10), 1) ORDER BY min(s.sealed_at));

GRANT UPDATE (origins, stopped_history, stopped_reason) ON audit_tree TO @system@;
""")
    run("""
DROP FUNCTION begin_new_history(text, text, uuid);

CREATE FUNCTION begin_new_history(
    p_reason text, p_seen text DEFAULT '', p_expected uuid DEFAULT NULL, p_tampering boolean DEFAULT false)
    RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        head public.stream_head;
        tree public.audit_tree;
        begun uuid := gen_random_uuid();
        removed text := '';
        record text;
    BEGIN
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
        IF head.history_id <> p_expected THEN
            RETURN head.history_id;
        END IF;
        PERFORM FROM public.leases AS l ORDER BY l.name FOR UPDATE;
        UPDATE public.leases SET owner = NULL, epoch = epoch + 1, expires_at = clock_timestamp();
        PERFORM FROM public.reconcile_work AS w WHERE w.lease_owner IS NOT NULL
        ORDER BY w.resource_type, w.resource_id FOR UPDATE;
        UPDATE public.reconcile_work
        SET lease_owner = NULL, leased_until = NULL, lease_epoch = lease_epoch + 1,
            due_at = LEAST(due_at, clock_timestamp()), updated_at = clock_timestamp()
        WHERE lease_owner IS NOT NULL;
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
        IF head.history_id <> p_expected THEN
            RETURN head.history_id;
        END IF;
        UPDATE public.stream_head
        SET history_id = begun, pending_floor = 0, floor_candidate = 0, floor_transaction = NULL
        WHERE id = 1;
        -- Whoever seals holds this row, so no head is signed for a history that ends here.
        SELECT * INTO tree FROM public.audit_tree WHERE id = 1 FOR UPDATE;
        IF p_tampering THEN
            UPDATE public.audit_tree SET stopped_history = begun, stopped_reason = left(p_seen, 500) WHERE id = 1;
        ELSIF p_expected IS NOT NULL THEN
            UPDATE public.audit_tree SET stopped_history = begun
            WHERE id = 1 AND stopped_history = head.history_id;
        ELSE
            SELECT s.note INTO removed FROM public.audit_seals AS s
            WHERE s.size > tree.size ORDER BY s.size DESC LIMIT 1;
            DELETE FROM public.audit_seals AS s WHERE s.size > tree.size;
        END IF;
        PERFORM pg_notify('pilothouse_history', begun::text);
        -- Canonical JSON: sorted keys, no spaces, as the application hashes its records.
        record := '{"action":"other","client_ip":null,"completed_at":null,"duration_ms":null,"error_code":'
            || CASE WHEN p_tampering THEN '"DATA_LOSS"' ELSE 'null' END || ',"error_message":'
            || CASE WHEN p_tampering THEN to_json(left(p_reason, 500))::text ELSE 'null' END
            || ',"metadata":{"history":"' || begun || '","history_before":"' || head.history_id
            || '","reason":' || to_json(left(p_reason, 500))
            || CASE WHEN removed <> '' THEN ',"removed_head":' || to_json(left(removed, 4000)) ELSE '' END
            || ',"revision":' || head.revision
            || ',"seen":' || to_json(left(p_seen, 500)) || ',"sequence":' || head.audit_sequence
            || '},"namespace_id":null,"operation_id":"' || gen_random_uuid()
            || '","request_body":null,"request_headers":null,"request_method":null,"request_path":null,'
            || '"resource_id":null,"resource_name":null,"resource_type":"database","response_body":null,'
            || '"started_at":"' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            || '","status_code":' || CASE WHEN p_tampering THEN 500 ELSE 200 END
            || ',"stream_id":null,"user_agent":null,"user_id":null,"username":"system"}';
        PERFORM public.put_changes(
            p_audit => jsonb_build_array(record::jsonb), p_hashes => ARRAY[sha256(convert_to(record, 'UTF8'))],
            p_events => '[]', p_messages => '{}');
        RETURN begun;
    END
    $$;

COMMENT ON FUNCTION begin_new_history(text, text, uuid, boolean) IS
    'Starts a new line of events where the database went back, or while it is the expected one; returns its name.';

GRANT EXECUTE ON FUNCTION begin_new_history(text, text, uuid, boolean) TO @system@;
""")


def downgrade() -> None:
    run("""
DROP FUNCTION begin_new_history(text, text, uuid, boolean);
""")
    run("""
CREATE FUNCTION begin_new_history(p_reason text, p_seen text DEFAULT '', p_expected uuid DEFAULT NULL)
    RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        head public.stream_head;
        begun uuid := gen_random_uuid();
        record text;
    BEGIN
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
        IF head.history_id <> p_expected THEN
            RETURN head.history_id;
        END IF;
        PERFORM FROM public.leases AS l ORDER BY l.name FOR UPDATE;
        UPDATE public.leases SET owner = NULL, epoch = epoch + 1, expires_at = clock_timestamp();
        PERFORM FROM public.reconcile_work AS w WHERE w.lease_owner IS NOT NULL
        ORDER BY w.resource_type, w.resource_id FOR UPDATE;
        UPDATE public.reconcile_work
        SET lease_owner = NULL, leased_until = NULL, lease_epoch = lease_epoch + 1,
            due_at = LEAST(due_at, clock_timestamp()), updated_at = clock_timestamp()
        WHERE lease_owner IS NOT NULL;
        SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
        IF head.history_id <> p_expected THEN
            RETURN head.history_id;
        END IF;
        UPDATE public.stream_head
        SET history_id = begun, pending_floor = 0, floor_candidate = 0, floor_transaction = NULL
        WHERE id = 1;
        PERFORM pg_notify('pilothouse_history', begun::text);
        -- Canonical JSON: sorted keys, no spaces, as the application hashes its records.
        record := '{"action":"other","client_ip":null,"completed_at":null,"duration_ms":null,"error_code":null,'
            || '"error_message":null,"metadata":{"history":"' || begun || '","history_before":"' || head.history_id
            || '","reason":' || to_json(left(p_reason, 500)) || ',"revision":' || head.revision
            || ',"seen":' || to_json(left(p_seen, 500)) || ',"sequence":' || head.audit_sequence
            || '},"namespace_id":null,"operation_id":"' || gen_random_uuid()
            || '","request_body":null,"request_headers":null,"request_method":null,"request_path":null,'
            || '"resource_id":null,"resource_name":null,"resource_type":"database","response_body":null,'
            || '"started_at":"' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            || '","status_code":200,"stream_id":null,"user_agent":null,"user_id":null,"username":"system"}';
        PERFORM public.put_changes(
            p_audit => jsonb_build_array(record::jsonb), p_hashes => ARRAY[sha256(convert_to(record, 'UTF8'))],
            p_events => '[]', p_messages => '{}');
        RETURN begun;
    END
    $$;

COMMENT ON FUNCTION begin_new_history(text, text, uuid) IS
    'Starts a new line of events where the database went back, or while it is the expected one; returns its name.';

GRANT EXECUTE ON FUNCTION begin_new_history(text, text, uuid) TO @system@;

ALTER TABLE audit_tree
    DROP COLUMN stopped_reason,
    DROP COLUMN stopped_history,
    DROP COLUMN origins;
""")
