-- A materialised view has no row-level security, so the app role has no right on container_summary and reads it here.
CREATE OR REPLACE FUNCTION reachable_container_summary()
    RETURNS TABLE(namespace_id bigint, namespace_name varchar, total_containers bigint, running_containers bigint,
        stopped_containers bigint, failed_containers bigint, total_size_bytes numeric)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT s.* FROM public.container_summary AS s
WHERE (SELECT public.app_sees_all()) OR s.namespace_id = ANY ((SELECT public.app_namespace_ids())::bigint[])
$$;

COMMENT ON FUNCTION reachable_container_summary IS 'The rows of container_summary that the caller reaches.';
GRANT EXECUTE ON FUNCTION reachable_container_summary TO pilothouse_app;
