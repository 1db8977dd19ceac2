-- See read_container.
CREATE OR REPLACE FUNCTION read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.services.id, public.services.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.services.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.services
    JOIN public.namespaces ON public.services.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'service' AND
        public.services.id = public.rendered_messages.resource_id AND public.services.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.services.name = p_name;
END
$$;

COMMENT ON FUNCTION read_service IS 'What a read of a Service returns, where its message is stored in this format.';
GRANT EXECUTE ON FUNCTION read_service TO pilothouse_app;
