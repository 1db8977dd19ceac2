-- A row of container_usage_days is a copy of a day of container_usage_hourly and must never be an old one. So each
-- change of an hour empties the row of its day (format 0), and readers take the hours instead until the server packs
-- the day again. The server locks such a row before it reads the hours, and this locks it also where it is empty
-- already, so neither goes by what the other one is about to change.
CREATE OR REPLACE FUNCTION mark_usage_days()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE public.container_usage_days AS d SET format = 0, hours = 0, points = NULL
        FROM (SELECT DISTINCT container_id, date_trunc('day', bucket, 'UTC') AS day FROM changed) AS c
        WHERE d.container_id = c.container_id AND d.day = c.day;
    ELSE
        INSERT INTO public.container_usage_days AS d (container_id, namespace_id, day)
        SELECT DISTINCT container_id, namespace_id, date_trunc('day', bucket, 'UTC') FROM changed ORDER BY 1, 3
        ON CONFLICT ON CONSTRAINT pk_container_usage_days
        DO UPDATE SET format = 0, hours = 0, points = NULL WHERE d.format <> 0;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION mark_usage_days IS 'Makes the rows of container_usage_days empty whose hours were changed.';
