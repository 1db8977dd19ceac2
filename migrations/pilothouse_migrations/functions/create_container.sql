-- The message that creates a container: its transaction. It takes the lock of the request, has write_container make the
-- container, and ends with put_changes. The primary key of idempotency_keys decides whether the request was served in
-- the meantime.
--
-- The caller's reach is computed for the container's namespace only: a smaller reach allows no more. The result is an
-- id for the next container of this server, and the time; so a create that knows the facts already needs no other
-- message.
CREATE OR REPLACE FUNCTION create_container(
    p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb,
    p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb,
    OUT next_id bigint, OUT moment timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
        PERFORM public.refuse_outdated('the request');
    END IF;
    PERFORM public.write_container(p_container, p_env, p_ports, p_mounts, p_operation, p_namespace_version, p_limits,
        p_services, p_config_maps, p_secrets, p_volumes);
    next_id := nextval('public.containers_id_seq');
    moment := transaction_timestamp();
    PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
END
$$;

COMMENT ON FUNCTION create_container IS
    'Makes a container that was admitted, with its record and event; returns an id for the next one, and the time.';
GRANT EXECUTE ON FUNCTION create_container TO pilothouse_app;
