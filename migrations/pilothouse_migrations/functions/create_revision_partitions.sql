-- Makers lock the parent against one another, and not against readers or writers.
CREATE OR REPLACE FUNCTION create_revision_partitions(
    table_name text, start_revision bigint, partitions integer DEFAULT 3, partition_size bigint DEFAULT 1000000)
    RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lower_revision bigint;
    made integer := 0;
BEGIN
    EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', table_name);
    FOR i IN 0 .. partitions - 1 LOOP
        lower_revision := (start_revision / partition_size + i) * partition_size;
        CONTINUE WHEN EXISTS (
            SELECT FROM public.partition_bounds(table_name) AS b
            WHERE b.lower_bound::bigint <= lower_revision
              AND b.upper_bound::bigint >= lower_revision + partition_size);
        PERFORM public.create_partition(table_name, table_name || '_r' || lower_revision,
            lower_revision::text, (lower_revision + partition_size)::text);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

COMMENT ON FUNCTION create_revision_partitions IS
    'Makes the missing partitions from the one that holds start_revision on; returns how many were made.';
