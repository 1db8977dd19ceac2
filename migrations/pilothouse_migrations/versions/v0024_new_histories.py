"""What begins a new history of events does all that belongs to it: `begin_new_history`.

A database that went back (a restored dump or snapshot, a standby that lost commits) gives numbers anew that it gave
before, to other events. So that nobody goes on from the old ones as if they were these, the line of events gets another
name. It is one function for whoever finds that out: a server, a restore, an administrator.

It ends all leases, whose holders know things that this database does not: the epochs rise, so the database refuses what
they would still write, and observers and reconcilers begin anew. Their rows are locked before the head, as everywhere.
The floor of pending rows rests on transactions of the database as it was, so it is given up. The last statement leaves
the record, as of any change.

Several servers find it out at once. Who names the history that was found broken begins a new one only while that is the
database's: the second one gets the name that the first one gave.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
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

CREATE OR REPLACE FUNCTION begin_new_history() RETURNS uuid
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT public.begin_new_history('an administrator asked for it')
    $$;
""")


def downgrade() -> None:
    run("""
CREATE OR REPLACE FUNCTION begin_new_history() RETURNS uuid
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$
    UPDATE public.stream_head SET history_id = gen_random_uuid() WHERE id = 1 RETURNING history_id
    $$;

DROP FUNCTION begin_new_history(text, text, uuid);
""")
