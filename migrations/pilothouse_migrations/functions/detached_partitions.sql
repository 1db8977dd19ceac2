-- A server marks a partition by its comment before it detaches it.
CREATE OR REPLACE FUNCTION detached_partitions(table_name text)
    RETURNS TABLE(partition_name text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT c.relname::text
FROM pg_class AS c
JOIN pg_class AS parent ON parent.oid = to_regclass(format('public.%I', $1))
WHERE c.relnamespace = parent.relnamespace AND c.relowner = parent.relowner
  AND c.relkind = 'r' AND NOT c.relispartition
  AND obj_description(c.oid, 'pg_class') = format('Was a partition of %s; to be dropped.', $1)
ORDER BY c.relname
$$;

COMMENT ON FUNCTION detached_partitions IS
    'What was detached in order to be dropped and then was not, as after a crash.';
