-- Lets a caller read the users of its namespaces, so that created_by can be shown as a name.
CREATE OR REPLACE FUNCTION app_peer_ids()
    RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT coalesce(array_agg(DISTINCT g.user_id), '{}')
FROM public.user_roles AS g
WHERE cardinality(public.app_namespace_ids()) > 0
  AND (g.namespace_id IS NULL OR g.namespace_id = ANY (public.app_namespace_ids()))
$$;

COMMENT ON FUNCTION app_peer_ids IS 'The users who share a namespace with the caller.';
GRANT EXECUTE ON FUNCTION app_peer_ids TO pilothouse_app, pilothouse_system;
