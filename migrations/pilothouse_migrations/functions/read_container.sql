-- A read by key in one message: sets the caller, computes its reach once, and returns the row under row-level
-- security. The statement that calls this is a transaction by itself, so the identity ends with it. (A plain SELECT
-- that sets the identity and reads is not safe: PostgreSQL may read first.) The query is the server's own statement,
-- so that its plan is kept; a test compares the two.
CREATE OR REPLACE FUNCTION read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer)
    RETURNS TABLE(id bigint, namespace_id bigint, creator varchar, message bytea, status varchar, started_at
        timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.containers.id, public.containers.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.containers.created_by = public.users.id) AS creator, public.rendered_messages.message,
        public.containers.status, public.containers.started_at
    FROM public.containers
    JOIN public.namespaces ON public.containers.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'container' AND
        public.containers.id = public.rendered_messages.resource_id AND public.containers.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.containers.name = p_name;
END
$$;

COMMENT ON FUNCTION read_container IS 'What a read of a container answers, where its message is kept in this format.';
GRANT EXECUTE ON FUNCTION read_container TO pilothouse_app;
