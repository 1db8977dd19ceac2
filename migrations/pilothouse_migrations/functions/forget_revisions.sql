-- One statement for each deletion, however many rows it deletes.
CREATE OR REPLACE FUNCTION forget_revisions()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM public.revisions AS r USING gone AS g
    WHERE r.resource_type = TG_ARGV[0] AND r.resource_id = g.id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION forget_revisions IS 'Deletes the revisions of rows that are deleted.';
