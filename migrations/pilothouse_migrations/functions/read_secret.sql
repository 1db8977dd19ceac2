-- See read_container.
CREATE OR REPLACE FUNCTION read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.secrets.id, public.secrets.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.secrets.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.secrets
    JOIN public.namespaces ON public.secrets.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'secret' AND
        public.secrets.id = public.rendered_messages.resource_id AND public.secrets.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.secrets.name = p_name;
END
$$;

COMMENT ON FUNCTION read_secret IS 'What a read of a secret answers, where its message is kept in this format.';
GRANT EXECUTE ON FUNCTION read_secret TO pilothouse_app;
