-- Images belong to no namespace and are registered by being used. A caller may not see the row that another tenant
-- made already, so this runs with the owner's rights.
CREATE OR REPLACE FUNCTION register_image(p_repository text, p_name text, p_tag text, p_digest text)
    RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id bigint;
    v_status text;
BEGIN
    LOOP
        SELECT i.id, i.status INTO v_id, v_status FROM public.container_images AS i
        WHERE i.repository IS NOT DISTINCT FROM p_repository AND i.name = p_name
          AND i.tag IS NOT DISTINCT FROM p_tag AND i.digest IS NOT DISTINCT FROM p_digest;
        EXIT WHEN FOUND;
        INSERT INTO public.container_images (repository, name, tag, digest)
        VALUES (p_repository, p_name, p_tag, p_digest)
        ON CONFLICT DO NOTHING RETURNING id INTO v_id;
        EXIT WHEN FOUND;
    END LOOP;
    IF v_status = 'deleted' THEN
        UPDATE public.container_images SET status = 'available' WHERE id = v_id AND status = 'deleted';
    END IF;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION register_image IS 'The id of an image reference, registered if it is new.';
GRANT EXECUTE ON FUNCTION register_image TO pilothouse_app, pilothouse_system;
