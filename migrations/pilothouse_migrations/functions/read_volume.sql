-- See read_container.
CREATE OR REPLACE FUNCTION read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea, mounted_by varchar[])
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.volumes.id, public.volumes.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.volumes.created_by = public.users.id) AS creator, public.rendered_messages.message, (SELECT
        coalesce(array_agg(DISTINCT public.containers.name ORDER BY public.containers.name), CAST('{}' AS TEXT[]))
        AS coalesce_1
    FROM public.container_volumes
    JOIN public.containers ON public.containers.id = public.container_volumes.container_id
    WHERE public.volumes.id = public.container_volumes.volume_id AND public.containers.deletion_requested_at IS
        NULL) AS mounted_by
    FROM public.volumes
    JOIN public.namespaces ON public.volumes.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'volume' AND
        public.volumes.id = public.rendered_messages.resource_id AND public.volumes.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.volumes.name = p_name;
END
$$;

COMMENT ON FUNCTION read_volume IS 'What a read of a volume answers, where its message is kept in this format.';
GRANT EXECUTE ON FUNCTION read_volume TO pilothouse_app;
