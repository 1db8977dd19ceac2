-- Namespaces of one cluster take turns: the lock is held until the transaction ends, and the read after it sees all that
-- was committed before, because each statement of a volatile function takes a snapshot of its own. Nothing else is
-- waited for under the lock. The result names the caller's own patterns, so it reveals of others that they overlap.
CREATE OR REPLACE FUNCTION taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[])
    RETURNS text[]
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('hosts/' || p_cluster, 0));
    RETURN (
        SELECT coalesce(array_agg(h.host), '{}')
        FROM unnest(p_hosts) AS h(host)
        WHERE EXISTS (
            SELECT FROM public.namespaces AS n, unnest(n.allowed_hosts) AS o(host)
            WHERE n.cluster_name = p_cluster AND n.deleted_at IS NULL AND n.id IS DISTINCT FROM p_namespace_id
                AND public.hosts_overlap(h.host, o.host)));
END
$$;

COMMENT ON FUNCTION taken_hosts IS 'Those patterns that overlap hosts of another namespace of the cluster.';
GRANT EXECUTE ON FUNCTION taken_hosts TO pilothouse_app, pilothouse_system;
