-- Makers lock the parent against one another, and not against readers or writers.
CREATE OR REPLACE FUNCTION create_daily_partitions(table_name text, start_date date, days integer DEFAULT 14)
    RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
AS $$
DECLARE
    lower_time timestamptz;
    upper_time timestamptz;
    made integer := 0;
BEGIN
    EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', table_name);
    FOR i IN 0 .. days - 1 LOOP
        lower_time := (start_date + i)::timestamp;
        upper_time := (start_date + i + 1)::timestamp;
        CONTINUE WHEN EXISTS (
            SELECT FROM public.partition_bounds(table_name) AS b
            WHERE b.lower_bound::timestamptz <= lower_time AND b.upper_bound::timestamptz >= upper_time);
        PERFORM public.create_partition(table_name, table_name || to_char(lower_time, '"_y"YYYY"m"MM"d"DD'),
            lower_time::text, upper_time::text);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

COMMENT ON FUNCTION create_daily_partitions IS
    'Makes the missing partitions of the given number of days (UTC); returns how many were made.';
