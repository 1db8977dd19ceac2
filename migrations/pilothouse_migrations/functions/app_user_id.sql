-- A plain expression, which the planner puts into the policies.
CREATE OR REPLACE FUNCTION app_user_id()
    RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.current_user_id', true), '')::bigint;

COMMENT ON FUNCTION app_user_id IS 'The caller''s user id as set for this transaction, or null.';
GRANT EXECUTE ON FUNCTION app_user_id TO pilothouse_app, pilothouse_system;
