-- The app role may not read users.password_hash, because peers see the rows of one another.
CREATE OR REPLACE FUNCTION app_password_hash()
    RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT u.password_hash FROM public.users AS u
WHERE u.id = nullif(current_setting('app.current_user_id', true), '')::bigint AND u.deleted_at IS NULL
$$;

COMMENT ON FUNCTION app_password_hash IS
    'The caller''s own password hash; other users'' cannot be read by the app role.';
GRANT EXECUTE ON FUNCTION app_password_hash TO pilothouse_app;
