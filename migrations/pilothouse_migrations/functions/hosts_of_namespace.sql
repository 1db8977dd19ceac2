-- Asked for when an annotation of a container's Services gives a new host. No other create or change pays for it.
CREATE OR REPLACE FUNCTION hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[])
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.allowed_hosts INTO allowed_hosts
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;

COMMENT ON FUNCTION hosts_of_namespace IS
    'The hosts that a namespace may use, as the caller sees it; null: there is none.';
GRANT EXECUTE ON FUNCTION hosts_of_namespace TO pilothouse_app, pilothouse_system;
