-- A row stays where its program has the same image as before, because it refers to the image as its pods run it.
-- References are split by the rules of values/image_reference.py, which has checked them before they were written. The
-- caller may not see an image that another tenant's container has registered, hence the owner's rights.
CREATE OR REPLACE FUNCTION write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted jsonb := coalesce(p_spec -> 'sidecars', '[]') || coalesce(p_spec -> 'init_containers', '[]');
BEGIN
    DELETE FROM public.program_images AS p
    WHERE p.container_id = p_container_id AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(wanted) AS w(name text, image text)
        WHERE w.name = p.program AND w.image = p.image);
    INSERT INTO public.program_images (container_id, namespace_id, program, image, image_id)
    SELECT p_container_id, p_namespace_id, w.name, w.image, public.register_image(
        substring(t.path FROM '^(.*)/[^/]*$'),
        substring(t.path FROM '[^/]*$'),
        -- As every runtime takes it.
        coalesce(t.tag, CASE WHEN t.digest IS NULL THEN 'latest' END),
        t.digest)
    FROM jsonb_to_recordset(wanted) AS w(name text, image text)
    CROSS JOIN LATERAL (
        SELECT regexp_replace(split_part(w.image, '@', 1), ':[^:/]*$', '') AS path,
               substring(split_part(w.image, '@', 1) FROM ':([^:/]*)$') AS tag,
               nullif(split_part(w.image, '@', 2), '') AS digest) AS t
    -- In one order, because several transactions may register the same images.
    ORDER BY w.image
    ON CONFLICT ON CONSTRAINT pk_program_images DO NOTHING;
END
$$;

COMMENT ON FUNCTION write_program_images IS 'Writes the images of the sidecars and init containers of a container.';
