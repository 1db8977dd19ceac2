-- See partition_bounds.
CREATE OR REPLACE FUNCTION old_partitions(table_name text, before timestamptz)
    RETURNS TABLE(partition_name text, lower_bound timestamptz, upper_bound timestamptz, detach_pending boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
AS $$
SELECT b.partition_name, b.lower_bound::timestamptz, b.upper_bound::timestamptz, b.detach_pending
FROM public.partition_bounds($1) AS b
WHERE b.upper_bound::timestamptz <= $2
ORDER BY b.upper_bound::timestamptz
$$;

COMMENT ON FUNCTION old_partitions IS 'Partitions that hold nothing at or after a time.';
