-- One statement for each deletion, however many rows it deletes.
CREATE OR REPLACE FUNCTION forget_rendered_messages()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM public.rendered_messages AS m USING gone AS g
    WHERE m.resource_type = TG_ARGV[0] AND m.resource_id = g.id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION forget_rendered_messages IS 'Deletes the messages of rows that are deleted.';
