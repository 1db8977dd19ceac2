-- Asked for when a container gets a port with another Service, or another type of one, than it has. No create without
-- such a port pays for it.
CREATE OR REPLACE FUNCTION service_limits(
    p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.id, n.service_types, nullif((n.resource_quota ->> 'services')::bigint, 0)
    INTO found_id, service_types, most
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF most IS NOT NULL THEN
        used := public.count_services(found_id);
    END IF;
END
$$;

COMMENT ON FUNCTION service_limits IS
    'Types and number of Services that a namespace allows, as the caller sees it, and how many it has; null: no limit.';
GRANT EXECUTE ON FUNCTION service_limits TO pilothouse_app, pilothouse_system;
