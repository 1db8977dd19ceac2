-- A container uses other images than before. One that comes or goes has an event of its own, which watches of images
-- read, too.
CREATE OR REPLACE FUNCTION put_image_use_event()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ids bigint[] := CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[NEW.image_id] WHEN 'DELETE' THEN ARRAY[OLD.image_id]
        ELSE ARRAY[OLD.image_id, NEW.image_id] END;
    used record;
BEGIN
    FOR used IN
        SELECT DISTINCT ON (shown.name) i.id, shown.name FROM public.container_images AS i
        CROSS JOIN LATERAL (SELECT concat(nullif(i.repository, '') || '/', i.name,
            coalesce(':' || i.tag, '@' || i.digest)) AS name) AS shown
        WHERE i.id = ANY (ids) ORDER BY shown.name, i.id
    LOOP
        PERFORM public.put_row_event('image', used.id,
            ARRAY[CASE TG_OP WHEN 'DELETE' THEN OLD.namespace_id ELSE NEW.namespace_id END], used.name, 'modified', '{}');
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION put_image_use_event IS 'Puts the events of images that a container uses, or no longer uses.';
