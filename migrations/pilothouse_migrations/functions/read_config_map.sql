-- See read_container.
CREATE OR REPLACE FUNCTION read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.config_maps.id, public.config_maps.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.config_maps.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.config_maps
    JOIN public.namespaces ON public.config_maps.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'config_map' AND
        public.config_maps.id = public.rendered_messages.resource_id AND public.config_maps.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.config_maps.name = p_name;
END
$$;

COMMENT ON FUNCTION read_config_map IS 'What a read of a config map answers, where its message is kept in this format.';
GRANT EXECUTE ON FUNCTION read_config_map TO pilothouse_app;
