-- Makes the partition as a table of its own and attaches it, which takes SHARE UPDATE EXCLUSIVE on the parent instead
-- of the ACCESS EXCLUSIVE of CREATE TABLE ... PARTITION OF. There is no default partition: it would forbid DETACH
-- CONCURRENTLY and would be scanned at each attach. Partitions have row-level security without a policy and no grants,
-- because the policies of the parent do not guard a partition that is queried by its own name.
CREATE OR REPLACE FUNCTION create_partition(
    table_name text, wanted_name text, lower_bound text, upper_bound text)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
AS $$
DECLARE
    free_name text := wanted_name;
    attempt integer := 1;
BEGIN
    WHILE to_regclass(format('public.%I', free_name)) IS NOT NULL LOOP
        attempt := attempt + 1;
        free_name := wanted_name || '_' || attempt;
    END LOOP;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING DEFAULTS)',
        free_name, table_name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', free_name);
    EXECUTE format('COMMENT ON TABLE public.%I IS %L', free_name,
        format('Partition of %s from %s to %s.', table_name, lower_bound, upper_bound));
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        table_name, free_name, lower_bound, upper_bound);
END
$$;

COMMENT ON FUNCTION create_partition IS 'Makes one empty partition and attaches it.';
