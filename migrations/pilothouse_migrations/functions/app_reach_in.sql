-- Used by create_container, which touches one namespace only.
CREATE OR REPLACE FUNCTION app_reach_in(p_namespace_id bigint)
    RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
    SELECT current_setting('app.current_user_id', true) || '/'
        || CASE WHEN bool_or(g.namespace_id IS NULL) THEN '1' ELSE '0' END
        || CASE WHEN bool_or(g.namespace_id IS NOT NULL) THEN '{' || p_namespace_id || '}' ELSE '{}' END
    FROM public.user_roles AS g
    JOIN public.roles AS r ON r.id = g.role_id
    WHERE g.user_id = nullif(current_setting('app.current_user_id', true), '')::bigint
      AND (g.namespace_id IS NULL OR g.namespace_id = p_namespace_id)
      AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
      AND jsonb_array_length(r.permissions) > 0
      AND EXISTS (
          SELECT FROM public.users AS u
          WHERE u.id = nullif(current_setting('app.current_user_id', true), '')::bigint
            AND u.status = 'active' AND u.deleted_at IS NULL));
END
$$;

COMMENT ON FUNCTION app_reach_in IS
    'As app_reach, of one namespace: whether the caller reaches it, by a grant over all or by one of its own.';
GRANT EXECUTE ON FUNCTION app_reach_in TO pilothouse_app, pilothouse_system;
