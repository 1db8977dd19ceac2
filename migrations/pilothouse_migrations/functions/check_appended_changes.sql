-- Raises insufficient_privilege unless a caller's changes are in the caller's own name and namespaces.
--
-- A record names the caller, by id and by name, and no namespace or one that the caller reaches. An event names a
-- namespace that the caller reaches. A caller that gives up a grant of its own no longer reaches its namespace when
-- the record is written, so note_given_up_grant notes such namespaces in app.given_up for the transaction. A session
-- that could forge that setting could also forge app.current_user_id.
CREATE OR REPLACE FUNCTION check_appended_changes(
    p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller bigint := public.app_user_id();
    own boolean := caller IS NOT NULL
        AND coalesce((p_idempotency ->> 'user_id')::bigint = caller, true)
        AND coalesce((p_operation ->> 'user_id')::bigint = caller, true);
    caller_name text;
    known_reach text;
    reachable bigint[];
    recordable bigint[];
BEGIN
    IF own AND p_audit <> '[]' THEN
        SELECT u.username INTO caller_name FROM public.users AS u WHERE u.id = caller;
        FOR position IN 0 .. jsonb_array_length(p_audit) - 1 LOOP
            own := own AND coalesce((p_audit -> position ->> 'user_id')::bigint = caller
                AND p_audit -> position ->> 'username' = caller_name, false);
        END LOOP;
    END IF;
    IF NOT own THEN
        RAISE EXCEPTION 'the caller may append changes in their own name only'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    known_reach := split_part(public.app_known_reach(), '/', 2);
    IF starts_with(known_reach, '1') THEN
        RETURN;
    END IF;
    reachable := coalesce(nullif(substr(known_reach, 2), ''), '{}');
    FOR position IN 0 .. jsonb_array_length(p_events) - 1 LOOP
        IF NOT coalesce((p_events -> position ->> 'namespace_id')::bigint = ANY (reachable), false) THEN
            RAISE EXCEPTION 'the caller may append events of reachable namespaces only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END LOOP;
    recordable := reachable || string_to_array(nullif(current_setting('app.given_up', true), ''), ',')::bigint[];
    -- NULL = ANY of an empty array is false.
    own := p_operation ->> 'namespace_id' IS NULL OR (p_operation ->> 'namespace_id')::bigint = ANY (recordable);
    FOR position IN 0 .. jsonb_array_length(p_audit) - 1 LOOP
        own := own AND (p_audit -> position ->> 'namespace_id' IS NULL
            OR (p_audit -> position ->> 'namespace_id')::bigint = ANY (recordable));
    END LOOP;
    IF NOT own THEN
        RAISE EXCEPTION 'the caller may append records of reachable namespaces only'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

COMMENT ON FUNCTION check_appended_changes IS
    'What row-level security would refuse of the app role''s changes, were they plain inserts.';
