-- The row that the trigger is about is locked, so no other revision of it gets the same number. The expressions come
-- from the trigger's definition, never from a row. A change of other fields, and an equal state, make no revision.
CREATE OR REPLACE FUNCTION note_revision()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    desired_fields CONSTANT text :=
        format('SELECT to_jsonb(d) FROM (SELECT %s FROM (SELECT ($1).*) AS r) AS d', TG_ARGV[1]);
    desired jsonb;
    former jsonb;
    added jsonb;
BEGIN
    EXECUTE desired_fields INTO desired USING new;
    added := jsonb_build_object(
        'document', desired, 'operation_id', nullif(current_setting('app.operation_id', true), ''), 'kept', 20);
    IF TG_OP = 'UPDATE' THEN
        EXECUTE desired_fields INTO former USING old;
        IF desired = former THEN
            RETURN NULL;
        END IF;
        added := added || jsonb_build_object('before', former, 'before_at', old.updated_at);
    END IF;
    PERFORM public.write_revision(TG_ARGV[0], new.id, new.namespace_id, added);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION note_revision IS 'Adds a revision of a row whose fields that callers set have changed.';
