-- Asked for when a container gets a reference to a config map or secret that only the cluster has. No other create or
-- change pays for it.
CREATE OR REPLACE FUNCTION allowed_external_sources(
    p_user_id bigint, p_namespace text, OUT external_sources text[])
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.external_sources INTO external_sources
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;

COMMENT ON FUNCTION allowed_external_sources IS
    'The names of config maps and secrets of the cluster that a namespace allows, as the caller sees it; null: there is none.';
GRANT EXECUTE ON FUNCTION allowed_external_sources TO pilothouse_app, pilothouse_system;
