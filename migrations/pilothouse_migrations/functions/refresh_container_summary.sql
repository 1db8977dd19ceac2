-- Called once an hour by a server.
CREATE OR REPLACE FUNCTION refresh_container_summary()
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    REFRESH MATERIALIZED VIEW CONCURRENTLY public.container_summary;
END
$$;

COMMENT ON FUNCTION refresh_container_summary IS 'Refreshes container_summary; readers are not blocked.';
