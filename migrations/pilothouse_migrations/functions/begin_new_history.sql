-- Gives the line of events another name after the database went back: a restored dump or snapshot, or a standby that
-- lost commits. Such a database gives out numbers again that it gave before, to other events, so nobody may go on from
-- the old ones. Servers, a restore and administrators all call this function.
--
-- It ends all leases: their holders know things that this database does not. The epochs rise, so the database refuses
-- what they would still write. Lease rows are locked before the head, as everywhere. The floor of pending rows rests
-- on transactions of the database as it was, so it is reset. The last statement leaves a record, as any mutation does.
--
-- p_expected: several servers notice at the same time. A caller that names the history it found broken begins a new
-- one only while that one is the database's; a later caller gets the name that the first one gave.
--
-- p_tampering: the log contradicts what was signed, or a record differs at a known place. Then sealing stops
-- (audit_tree.stopped_history) until a person begins another history. A history that a server begins by itself takes
-- the stop along, so that lowering a counter does not end it. When a person begins a history, heads beyond the end of
-- the log go, because their sizes will be given again; the record names the newest of them.
CREATE OR REPLACE FUNCTION begin_new_history(
    p_reason text DEFAULT 'an administrator asked for it',
    p_seen text DEFAULT '', p_expected uuid DEFAULT NULL, p_tampering boolean DEFAULT false)
    RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
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
    -- A server that seals holds this row, so no head is signed for a history that ends here.
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
    -- Canonical JSON (sorted keys, no spaces), as the application hashes its records.
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

COMMENT ON FUNCTION begin_new_history IS
    'Starts a new line of events where the database went back, or while it is the expected one; returns its name.';
GRANT EXECUTE ON FUNCTION begin_new_history TO pilothouse_system;
