-- The catalogue says which rows a partition holds; its name does not.
CREATE OR REPLACE FUNCTION partition_bounds(table_name text)
    RETURNS TABLE(partition_name text, lower_bound text, upper_bound text, detach_pending boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
AS $$
SELECT c.relname::text,
       substring(b.bound FROM 'FROM \(''([^'']*)''\)'),
       substring(b.bound FROM 'TO \(''([^'']*)''\)'),
       i.inhdetachpending
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
WHERE i.inhparent = to_regclass(format('public.%I', $1)) AND c.relispartition
$$;

COMMENT ON FUNCTION partition_bounds IS 'Partitions of a table with their bounds as the catalogue has them.';
