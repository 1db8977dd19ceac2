-- A plain expression, which the planner puts into the policies.
CREATE OR REPLACE FUNCTION app_namespace_ids()
    RETURNS bigint[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(substr(split_part(app_known_reach(), '/', 2), 2), '{}')::bigint[];

COMMENT ON FUNCTION app_namespace_ids IS 'The namespaces in which the caller has a living grant of their own.';
GRANT EXECUTE ON FUNCTION app_namespace_ids TO pilothouse_app, pilothouse_system;
