-- Counts row by row: for the one row that nearly every INSERT has, a transition table costs more than the count. See
-- fold_quota_changes.
CREATE OR REPLACE FUNCTION count_container_insert()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
    VALUES (NEW.namespace_id, 1, NEW.quota_cpu_millicores, NEW.quota_memory_bytes);
    IF random() < 0.03125 THEN
        PERFORM public.fold_quota_changes(NEW.namespace_id);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION count_container_insert IS 'Notes in quota_counters what a new container adds.';
