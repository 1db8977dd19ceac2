-- Service accounts are no users of the API's lists. A deleted user stays as a row.
CREATE OR REPLACE FUNCTION put_user_event()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM public.put_row_event('user', NEW.id, ARRAY[NULL::bigint], NEW.username,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'deleted' WHEN TG_OP = 'INSERT' THEN 'added' ELSE 'modified' END,
        jsonb_build_object('uid', NEW.uid));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION put_user_event IS 'Puts the event of a changed user.';
