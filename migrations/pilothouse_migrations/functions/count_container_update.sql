-- Counts row by row: few updates change what counts, and the trigger's WHEN skips the others.
CREATE OR REPLACE FUNCTION count_container_update()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before integer := (OLD.deletion_requested_at IS NULL)::integer;
    v_after integer := (NEW.deletion_requested_at IS NULL)::integer;
BEGIN
    INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
    SELECT d.namespace_id, sum(d.n), sum(d.n * d.cpu), sum(d.n * d.memory)
    FROM (VALUES (OLD.namespace_id, -v_before, OLD.quota_cpu_millicores, OLD.quota_memory_bytes),
                 (NEW.namespace_id, v_after, NEW.quota_cpu_millicores, NEW.quota_memory_bytes))
        AS d (namespace_id, n, cpu, memory)
    GROUP BY d.namespace_id;
    IF random() < 0.03125 THEN
        PERFORM public.fold_quota_changes(NEW.namespace_id);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION count_container_update IS 'Notes in quota_counters what a change of a container makes.';
