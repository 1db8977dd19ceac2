-- A deregistered cluster stays as a row, which a later registration takes over.
CREATE OR REPLACE FUNCTION put_cluster_event()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text := 'modified';
BEGIN
    IF NEW.deleted_at IS NOT NULL THEN
        kind := 'deleted';
    ELSIF TG_OP = 'INSERT' OR OLD.deleted_at IS NOT NULL THEN
        kind := 'added';
    END IF;
    PERFORM public.put_row_event('cluster', NEW.id, ARRAY[NULL::bigint], NEW.name, kind,
        jsonb_build_object('uid', NEW.uid));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION put_cluster_event IS 'Puts the event of a changed cluster.';
