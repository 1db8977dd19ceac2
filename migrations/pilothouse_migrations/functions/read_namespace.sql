-- See read_container.
CREATE OR REPLACE FUNCTION read_namespace(p_user_id bigint, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea, stale_since timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.namespaces.id, public.namespaces.id AS namespace_id, public.users.username AS creator,
        public.rendered_messages.message, public.clusters.stale_since
    FROM public.namespaces
    LEFT OUTER JOIN public.users ON public.users.id = public.namespaces.created_by
    LEFT OUTER JOIN public.clusters ON public.clusters.name = public.namespaces.cluster_name
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'namespace' AND
        public.rendered_messages.resource_id = public.namespaces.id AND public.rendered_messages.row_version =
        public.namespaces.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.deleted_at IS NULL AND public.namespaces.name = p_name;
END
$$;

COMMENT ON FUNCTION read_namespace IS 'What a read of a namespace answers, where its message is kept in this format.';
GRANT EXECUTE ON FUNCTION read_namespace TO pilothouse_app;
