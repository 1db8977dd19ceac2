-- The message that changes a container: its transaction. It takes the lock of the request, has update_container write
-- the change, and ends with put_changes. The primary key of idempotency_keys decides whether the request was served in
-- the meantime. The caller's reach is computed for the container's namespace only, as in create_container.
CREATE OR REPLACE FUNCTION change_container(
    p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb,
    p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
        PERFORM public.refuse_outdated('the request');
    END IF;
    PERFORM public.update_container(p_container, p_parts, p_history, p_operation, p_mounted, p_namespace_version,
        p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
END
$$;

COMMENT ON FUNCTION change_container IS
    'Writes a change of a container that the server has decided, with its record and event.';
GRANT EXECUTE ON FUNCTION change_container TO pilothouse_app;
