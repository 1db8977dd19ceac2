-- app.reach counts only where it was computed for the present user. A session that could forge app.reach could also
-- forge app.current_user_id, so the setting opens nothing new.
CREATE OR REPLACE FUNCTION app_known_reach()
    RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN starts_with(current_setting('app.reach', true), current_setting('app.current_user_id', true) || '/')
        THEN current_setting('app.reach', true)
        ELSE app_reach() END;

COMMENT ON FUNCTION app_known_reach IS
    'What the caller reaches: as the transaction keeps it for this very user, else computed.';
GRANT EXECUTE ON FUNCTION app_known_reach TO pilothouse_app, pilothouse_system;
