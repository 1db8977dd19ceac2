-- For administrators. It detaches under a lock for one statement. A running server uses DETACH CONCURRENTLY instead,
-- which no function can.
CREATE OR REPLACE FUNCTION drop_old_partitions(table_name text, retention_months integer)
    RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
AS $$
DECLARE
    old record;
    dropped integer := 0;
BEGIN
    IF retention_months IS NULL OR retention_months < 0 THEN
        RAISE EXCEPTION 'retention_months must be zero or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR old IN
        SELECT * FROM public.old_partitions(table_name, now() - make_interval(months => retention_months))
    LOOP
        EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I %s', table_name, old.partition_name,
            CASE WHEN old.detach_pending THEN 'FINALIZE' ELSE '' END);
        EXECUTE format('DROP TABLE public.%I', old.partition_name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION drop_old_partitions IS
    'Drops the partitions whose rows are all older than the given months; returns how many were dropped.';
