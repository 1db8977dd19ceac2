-- Moves a pending row that cannot be numbered to pending_incidents, so that the others go on. A record in the log
-- names the hashes of its records. Its caller holds the lock of stream_head.
CREATE OR REPLACE FUNCTION set_aside(p_id bigint, p_sqlstate text, p_constraint text)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    head public.stream_head;
    started text := to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    operation uuid := gen_random_uuid();
    message text := 'a committed change could not be numbered and was set aside';
    metadata text;
    hash bytea;
    mark bytea := substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8);
BEGIN
    -- A missing partition is the fault of no change: everything waits until there is one.
    IF p_sqlstate = '23514' AND p_constraint = 'operation_logs' THEN
        RAISE EXCEPTION 'no partition of operation_logs holds the time of a record'
            USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
    -- Canonical JSON (sorted keys, no spaces), as the application hashes its records.
    SELECT format('{"constraint":%s,"pending_id":%s,"record_hashes":[%s],"sqlstate":%s}', to_json(p_constraint),
               p.id, (SELECT coalesce(string_agg('"' || encode(h.hash, 'hex') || '"', ',' ORDER BY h.position), '')
                      FROM unnest(p.record_hashes) WITH ORDINALITY AS h(hash, position)), to_json(p_sqlstate))
    INTO STRICT metadata FROM public.pending_changes AS p WHERE p.id = p_id;
    hash := sha256(convert_to(
        '{"action":"other","client_ip":null,"completed_at":null,"duration_ms":null,"error_code":"INTERNAL",'
        || '"error_message":' || to_json(message) || ',"metadata":' || metadata || ',"namespace_id":null,'
        || '"operation_id":"' || operation || '","request_body":null,"request_headers":null,'
        || '"request_method":null,"request_path":null,"resource_id":null,"resource_name":null,'
        || '"resource_type":"audit_log","response_body":null,"started_at":"' || started || '",'
        || '"status_code":500,"stream_id":null,"user_agent":null,"user_id":null,"username":"system"}', 'UTF8'));
    INSERT INTO public.operation_logs
        (operation_id, username, action, resource_type, status_code, error_code, error_message, started_at,
         metadata, sequence, record_hash, mark)
    VALUES (operation, 'system', 'other', 'audit_log', 500, 'INTERNAL', message, started::timestamptz,
        metadata::jsonb, head.audit_sequence + 1, hash, mark);
    UPDATE public.stream_head AS h
    SET audit_sequence = head.audit_sequence + 1,
        record_mark = mark
    WHERE h.id = 1;
    INSERT INTO public.pending_incidents
        (id, records, record_hashes, events, messages, created_at, sqlstate, constraint_name, incident_sequence)
    SELECT p.id, p.records, p.record_hashes, p.events, p.messages, p.created_at, p_sqlstate, p_constraint,
           head.audit_sequence + 1
    FROM public.pending_changes AS p WHERE p.id = p_id;
    DELETE FROM public.pending_changes AS p WHERE p.id = p_id;
END
$$;

COMMENT ON FUNCTION set_aside IS
    'Sets a pending row aside that cannot be numbered, with a record that names the hashes of its records.';
