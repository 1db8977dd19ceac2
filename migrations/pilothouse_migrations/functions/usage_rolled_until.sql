-- Shows a time and nothing else, so it may look at all tenants: a tenant without recent roll-ups would otherwise
-- search all of them.
CREATE OR REPLACE FUNCTION usage_rolled_until()
    RETURNS TABLE(hour timestamptz, day timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT (SELECT max(bucket) FROM public.container_usage_hourly),
       (SELECT max(bucket) FROM public.container_usage_daily)
$$;

COMMENT ON FUNCTION usage_rolled_until IS 'The newest hour and the newest day that are rolled up, whoever they are of.';
GRANT EXECUTE ON FUNCTION usage_rolled_until TO pilothouse_app, pilothouse_system;
