-- See write_program_images.
CREATE OR REPLACE FUNCTION keep_program_images()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM public.write_program_images(NEW.id, NEW.namespace_id, NEW.spec);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keep_program_images IS 'Writes the images of the sidecars and init containers of a written container.';
