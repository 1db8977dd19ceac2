-- The last statement of a mutation: inserts one row of pending_changes with all its records and events. Nothing is
-- written after it; number_visible has the argument why numbers then follow the order of commits.
--
-- It runs with the owner's rights, because no login may write the log or the events by itself. So it checks what
-- row-level security would have checked (check_appended_changes), for every role but the system role and the owner,
-- which write in others' names by design.
--
-- The domains of the array elements hold every constraint of the log and of the events that a single value can break.
-- So such a value is refused here, in the mutation, and not when it is numbered.
--
-- pending_changes is empty most of the time. A plan that was made then would scan it, with its dead rows; hence no
-- sequential scans. Pending rows live for milliseconds, so their table does not compress rows up to the size of a
-- page.
CREATE OR REPLACE FUNCTION put_changes(
    p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb DEFAULT NULL,
    p_idempotency jsonb DEFAULT NULL)
    RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
    v_records public.pending_record[];
    v_events public.pending_event[];
    put_id bigint;
BEGIN
    IF caller_role NOT IN ('pilothouse_system', 'pilothouse_owner') THEN
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
        VALUES ((p_idempotency ->> 'user_id')::bigint, (p_idempotency ->> 'request_id')::uuid,
            p_idempotency ->> 'method', decode(p_idempotency ->> 'request_hmac', 'base64'),
            decode(p_idempotency ->> 'response', 'base64'), (p_idempotency ->> 'operation_id')::uuid,
            coalesce((p_idempotency ->> 'expires_at')::timestamptz, now() + interval '24 hours'));
    END IF;
    IF jsonb_array_length(p_events) = 1 AND p_events #>> '{0,kind}' <> 'deleted' THEN
        IF (p_events #>> '{0,kept_bytes}')::integer > 0 THEN
            PERFORM public.keep_rendered_message(p_events -> 0, p_messages[1]);
        END IF;
        v_events := ARRAY[
            jsonb_populate_record(NULL::public.pending_event_row, p_events -> 0)::public.pending_event];
    ELSE
        IF p_events <> '[]' THEN
            PERFORM public.keep_rendered_messages(p_events, p_messages);
        END IF;
        v_events := ARRAY(SELECT e::public.pending_event
            FROM jsonb_populate_recordset(NULL::public.pending_event_row, p_events) AS e);
    END IF;
    IF jsonb_array_length(p_audit) = 1 THEN
        v_records := ARRAY[
            jsonb_populate_record(NULL::public.pending_record_row, p_audit -> 0)::public.pending_record];
    ELSE
        v_records := ARRAY(SELECT r::public.pending_record
            FROM jsonb_populate_recordset(NULL::public.pending_record_row, p_audit) AS r);
    END IF;
    -- The transaction gets its id before the row does: the floor rests on that (number_visible).
    PERFORM pg_current_xact_id();
    INSERT INTO public.pending_changes (records, record_hashes, events, messages)
    VALUES (v_records, p_hashes, v_events, p_messages)
    RETURNING id INTO put_id;
    RETURN put_id;
END
$$;

COMMENT ON FUNCTION put_changes IS
    'The last statement of a mutation: its records and events, to be numbered once it is committed.';
GRANT EXECUTE ON FUNCTION put_changes TO pilothouse_app, pilothouse_system;
