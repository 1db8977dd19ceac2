-- A plain expression, which the planner puts into the policies.
CREATE OR REPLACE FUNCTION app_sees_all()
    RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(split_part(app_known_reach(), '/', 2) LIKE '1%', false);

COMMENT ON FUNCTION app_sees_all IS 'Whether the caller has a living grant over all namespaces.';
GRANT EXECUTE ON FUNCTION app_sees_all TO pilothouse_app, pilothouse_system;
