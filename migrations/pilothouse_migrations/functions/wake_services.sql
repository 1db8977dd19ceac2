-- A container is made, perhaps again under a name that Services name: they select its pods by the uid of the container,
-- which is a new one. So their work is due. Few containers are named by a Service, and the index finds none for the rest.
CREATE OR REPLACE FUNCTION wake_services()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.reconcile_work AS work
        (resource_type, resource_id, cluster_name, namespace_id, going, due_at)
    SELECT 'service', s.id, n.cluster_name, s.namespace_id, false, clock_timestamp()
    FROM public.services AS s JOIN public.namespaces AS n ON n.id = s.namespace_id
    WHERE s.namespace_id = new.namespace_id AND s.spec -> 'containers' ->> 0 = new.name
      AND s.deletion_requested_at IS NULL
    ON CONFLICT (resource_type, resource_id) DO UPDATE
    SET due_at = LEAST(work.due_at, EXCLUDED.due_at), attempts = 0, updated_at = clock_timestamp();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION wake_services IS 'Has the Services that name a new container reconciled.';
