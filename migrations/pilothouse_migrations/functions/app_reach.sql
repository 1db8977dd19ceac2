-- The caller is app.current_user_id, set with set_config(..., true) by the first statement of each transaction; unset
-- or empty is no user, who reaches nothing. The *reach* is the set of namespaces and users that a caller's statements
-- touch at all. The application decides which calls are allowed there.
--
-- A grant counts while it has not expired (null: never), its user is active and its role permits anything. The
-- function is SECURITY DEFINER and its owner has BYPASSRLS: a policy of user_roles that read user_roles itself would
-- recurse.
--
-- Functions that begin a transaction keep the result in app.reach, where app_known_reach finds it; policies asked for
-- it six to eight times a statement.
CREATE OR REPLACE FUNCTION app_reach()
    RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
    SELECT current_setting('app.current_user_id', true) || '/'
        || CASE WHEN bool_or(g.namespace_id IS NULL) THEN '1' ELSE '0' END
        || coalesce(array_agg(DISTINCT g.namespace_id) FILTER (WHERE g.namespace_id IS NOT NULL), '{}')::text
    FROM public.user_roles AS g
    JOIN public.users AS u ON u.id = g.user_id
    JOIN public.roles AS r ON r.id = g.role_id
    WHERE g.user_id = nullif(current_setting('app.current_user_id', true), '')::bigint
      AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
      AND u.status = 'active' AND u.deleted_at IS NULL
      AND jsonb_array_length(r.permissions) > 0);
END
$$;

COMMENT ON FUNCTION app_reach IS
    'What the caller reaches, as app.reach keeps it: user id, "/", 1 or 0 for all namespaces, those of its own grants.';
GRANT EXECUTE ON FUNCTION app_reach TO pilothouse_app, pilothouse_system;
