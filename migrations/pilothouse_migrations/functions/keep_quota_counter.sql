-- Foreign keys would be checked a second time by each write, so the counter has none.
CREATE OR REPLACE FUNCTION keep_quota_counter()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.quota_counters WHERE namespace_id = OLD.id;
    ELSE
        INSERT INTO public.quota_counters (namespace_id, id, containers, cpu_millicores, memory_bytes)
        VALUES (NEW.id, 0, 0, 0, 0);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keep_quota_counter IS 'Gives each namespace its counter.';
