-- See write_container. The server retries on this SQLSTATE.
CREATE OR REPLACE FUNCTION refuse_outdated(p_what text)
    RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% changed since it was read', p_what USING ERRCODE = 'serialization_failure';
END
$$;

COMMENT ON FUNCTION refuse_outdated IS 'Ends a transaction whose caller must look again.';
GRANT EXECUTE ON FUNCTION refuse_outdated TO pilothouse_app, pilothouse_system;
