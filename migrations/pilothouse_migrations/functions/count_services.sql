-- The Services of a namespace that its quota counts: those that stand by themselves, those being deleted included, and
-- those that ports of containers make. The latter are counted by the ports, because their rows follow later.
CREATE OR REPLACE FUNCTION count_services(p_namespace_id bigint)
    RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT count(*) FROM public.services AS s WHERE s.namespace_id = p_namespace_id AND s.owner IS NULL)
        + (SELECT count(DISTINCT p.service_name) FROM public.port_mappings AS p
           WHERE p.namespace_id = p_namespace_id AND p.service_name IS NOT NULL)
$$;

COMMENT ON FUNCTION count_services IS 'How many Services count against the quota of a namespace.';
GRANT EXECUTE ON FUNCTION count_services TO pilothouse_app, pilothouse_system;
