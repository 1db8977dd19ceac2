-- See check_appended_changes, which reads app.given_up.
CREATE OR REPLACE FUNCTION note_given_up_grant()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('app.given_up',
        concat_ws(',', nullif(current_setting('app.given_up', true), ''), OLD.namespace_id), true);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION note_given_up_grant IS
    'Notes for the transaction the namespace of a grant that its own holder deletes; see check_appended_changes.';
