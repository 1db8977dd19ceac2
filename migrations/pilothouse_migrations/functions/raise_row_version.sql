-- Every writer counts, whichever way it writes; resource_version (etags) counts only what users see.
CREATE OR REPLACE FUNCTION raise_row_version()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.row_version := OLD.row_version + 1;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION raise_row_version IS 'Counts the writes of a row, whoever makes them.';
