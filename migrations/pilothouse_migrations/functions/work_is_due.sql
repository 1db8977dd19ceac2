-- Whether the reconciler has work to do. By cluster, because the index of the queue begins with it.
CREATE OR REPLACE FUNCTION work_is_due()
    RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM public.clusters AS c
        CROSS JOIN LATERAL (
            SELECT FROM public.reconcile_work AS w
            WHERE w.cluster_name = c.name AND w.due_at <= statement_timestamp()
              AND (w.leased_until IS NULL OR w.leased_until <= statement_timestamp())
            ORDER BY w.due_at LIMIT 1) AS one);
END
$$;

COMMENT ON FUNCTION work_is_due IS 'Whether work for the reconciler is due and not leased.';
GRANT EXECUTE ON FUNCTION work_is_due TO pilothouse_system;
