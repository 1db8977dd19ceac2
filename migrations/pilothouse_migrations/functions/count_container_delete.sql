-- Counts by statement, so deleting a thousand containers adds one row for each namespace.
CREATE OR REPLACE FUNCTION count_container_delete()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_namespace_id bigint;
BEGIN
    FOR v_namespace_id IN
        INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
        SELECT namespace_id, -count(*), -sum(quota_cpu_millicores), -sum(quota_memory_bytes)
        FROM changed WHERE deletion_requested_at IS NULL GROUP BY namespace_id
        RETURNING namespace_id
    LOOP
        IF random() < 0.03125 THEN
            PERFORM public.fold_quota_changes(v_namespace_id);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION count_container_delete IS 'Notes in quota_counters what a statement adds or takes away.';
