-- An image is seen by those who see a container that uses it, so its event is one of each of their namespaces. Callers
-- who reach all namespaces see unused images, too. A new image has no event: the container that begins to use it has.
CREATE OR REPLACE FUNCTION put_image_event()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed public.container_images := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    used_in bigint[];
BEGIN
    SELECT array_agg(u.namespace_id) INTO used_in
    FROM (SELECT c.namespace_id FROM public.containers AS c WHERE c.image_id = changed.id
          UNION SELECT p.namespace_id FROM public.program_images AS p WHERE p.image_id = changed.id) AS u;
    PERFORM public.put_row_event('image', changed.id, coalesce(used_in, ARRAY[NULL::bigint]),
        concat(nullif(changed.repository, '') || '/', changed.name, coalesce(':' || changed.tag, '@' || changed.digest)),
        CASE TG_OP WHEN 'UPDATE' THEN 'modified' ELSE 'deleted' END, '{}');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION put_image_event IS 'Puts the events of a changed image.';
