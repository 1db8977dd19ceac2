-- Rows are only added, so that changes of two members of an application never wait for each other. The owner writes them:
-- no role but the system's sees them. A row that is in no application costs one look into an index.
CREATE OR REPLACE FUNCTION note_member_change()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_ARGV[0] = 'object' THEN
        INSERT INTO public.application_changes (application_id, namespace_id)
        SELECT m.application_id, m.namespace_id FROM public.application_members AS m
        WHERE m.namespace_id = old.namespace_id AND m.resource_type = 'object'
            AND m.api_group = old.api_group AND m.object_kind = old.kind AND m.name = old.name;
    ELSE
        INSERT INTO public.application_changes (application_id, namespace_id)
        SELECT m.application_id, m.namespace_id FROM public.application_members AS m
        WHERE m.namespace_id = old.namespace_id AND m.resource_type = TG_ARGV[0]
            AND m.api_group = '' AND m.object_kind = '' AND m.name = old.name;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION note_member_change IS 'Notes the application of a row that has changed or is gone.';
