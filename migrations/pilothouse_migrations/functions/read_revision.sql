-- Reads one revision in one message, under the caller's row-level security; see read_container.
CREATE OR REPLACE FUNCTION read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer)
    RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN (
        SELECT r.document::text FROM public.revisions AS r
        WHERE r.resource_type = p_type AND r.resource_id = p_id AND r.number = p_number);
END
$$;

COMMENT ON FUNCTION read_revision IS 'The document of one revision that the caller reaches; null: there is none.';
GRANT EXECUTE ON FUNCTION read_revision TO pilothouse_app, pilothouse_system;
