-- A grant has no name: its labels say whose it is.
CREATE OR REPLACE FUNCTION put_grant_event()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed public.user_roles := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    holder text;
BEGIN
    SELECT u.username INTO holder FROM public.users AS u WHERE u.id = changed.user_id;
    -- A role that is deleted with its grants is gone already.
    PERFORM public.put_row_event('grant', changed.id, ARRAY[changed.namespace_id], coalesce(holder, ''),
        CASE TG_OP WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'modified' ELSE 'deleted' END,
        jsonb_build_object(
            'role', coalesce((SELECT r.name FROM public.roles AS r WHERE r.id = changed.role_id), ''),
            'namespace', coalesce((SELECT n.name FROM public.namespaces AS n WHERE n.id = changed.namespace_id), '')));
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION put_grant_event IS 'Puts the event of a changed grant.';
