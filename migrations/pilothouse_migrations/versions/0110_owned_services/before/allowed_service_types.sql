-- Asked for when a container gets a port with another type of Service than it has. No create without such a port pays
-- for it.
CREATE OR REPLACE FUNCTION allowed_service_types(p_user_id bigint, p_namespace text, OUT service_types text[])
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.service_types INTO service_types
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;

COMMENT ON FUNCTION allowed_service_types IS
    'The types of Services that a namespace allows, as the caller sees it; empty: all; null: there is none.';
GRANT EXECUTE ON FUNCTION allowed_service_types TO pilothouse_app, pilothouse_system;
