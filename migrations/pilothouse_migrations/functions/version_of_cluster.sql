-- Asked for when a container gets extra fields, which are compared with Kubernetes' schemas of that version. No other
-- create or change pays for it.
CREATE OR REPLACE FUNCTION version_of_cluster(p_user_id bigint, p_namespace text, OUT version text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT c.version INTO version
    FROM public.namespaces AS n JOIN public.clusters AS c ON c.name = n.cluster_name
    WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;

COMMENT ON FUNCTION version_of_cluster IS
    'The version of Kubernetes that the cluster of a namespace had last, as the caller sees it; null: not known.';
GRANT EXECUTE ON FUNCTION version_of_cluster TO pilothouse_app, pilothouse_system;
