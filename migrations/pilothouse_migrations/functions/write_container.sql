-- Makes a container with all that belongs to it, but for its record and event: the only way to create one. A unit of work
-- calls it for each container and ends with put_changes; create_container does both in one message.
--
-- It takes the locks in their order (namespace, quota, volumes), compares what admit_container read with what there is
-- now, and writes. Where something changed it raises a serialization failure, and the server reads the facts again; so
-- every refusal is decided and worded in one place. The namespace is compared by its row_version, which each write of
-- its row raises: its state, its cluster and its quota are in the row.
--
-- The rows are written in the caller's name, as the app role under row-level security.
CREATE OR REPLACE FUNCTION write_container(
    p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    c public.containers := jsonb_populate_record(NULL::public.containers, p_container);
    caller bigint := public.app_user_id();
    home record;
    v_volumes text[];
    used record;
BEGIN
    SELECT n.cluster_name, n.row_version = p_namespace_version AS unchanged INTO home
    FROM public.namespaces AS n WHERE n.id = c.namespace_id FOR SHARE;
    IF home.unchanged IS NOT TRUE THEN
        PERFORM public.refuse_outdated('the namespace');
    END IF;
    IF p_limits IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || c.namespace_id, 0));
        SELECT coalesce(sum(q.containers), 0) AS containers, coalesce(sum(q.cpu_millicores), 0) AS cpu,
               coalesce(sum(q.memory_bytes), 0) AS memory
        INTO used FROM public.quota_counters AS q WHERE q.namespace_id = c.namespace_id;
        IF used.containers + 1 > p_limits[1]
            OR c.quota_cpu_millicores > 0 AND used.cpu + c.quota_cpu_millicores > p_limits[2]
            OR c.quota_memory_bytes > 0 AND used.memory + c.quota_memory_bytes > p_limits[3] THEN
            PERFORM public.refuse_outdated('what the quota leaves');
        END IF;
    END IF;
    -- An expression that contains a query costs its start even where it is not reached, so these are statements.
    IF cardinality(p_services) > 0 THEN
        PERFORM FROM public.port_mappings AS p
        WHERE p.namespace_id = c.namespace_id AND p.service_name = ANY (p_services);
        IF FOUND THEN
            PERFORM public.refuse_outdated('a service');
        END IF;
    END IF;
    IF cardinality(p_config_maps) > 0 THEN
        PERFORM FROM public.config_maps AS m
        WHERE m.namespace_id = c.namespace_id AND m.name = ANY (p_config_maps) AND m.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_config_maps);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a config map');
        END IF;
    END IF;
    IF cardinality(p_secrets) > 0 THEN
        PERFORM FROM public.secrets AS s
        WHERE s.namespace_id = c.namespace_id AND s.name = ANY (p_secrets) AND s.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_secrets);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a secret');
        END IF;
    END IF;
    IF p_volumes IS NOT NULL THEN
        -- A deletion has locked the namespace, and a change of a volume its row.
        v_volumes := ARRAY(SELECT d ->> 'name' FROM jsonb_array_elements(p_volumes) AS d);
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name = ANY (v_volumes) ORDER BY v.id FOR SHARE;
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name = ANY (v_volumes) AND v.deletion_requested_at IS NULL
        HAVING jsonb_agg(public.volume_definition(v) ORDER BY v.name) = p_volumes;
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a volume');
        END IF;
    END IF;
    INSERT INTO public.containers (
        id, uid, name, display_name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit,
        memory_request, memory_limit, created_at, updated_at, created_by, updated_by, labels, annotations, spec,
        desired_state, replicas, quota_cpu_millicores, quota_memory_bytes, drift_policy, hold_rollout,
        restart_requested_at, imported)
    VALUES (
        c.id, c.uid, c.name, c.display_name, c.namespace_id,
        public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}'),
        c.kubernetes_name, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.created_at,
        c.updated_at, caller, caller, c.labels, c.annotations, c.spec, c.desired_state, c.replicas,
        c.quota_cpu_millicores, c.quota_memory_bytes, c.drift_policy, c.hold_rollout, c.restart_requested_at,
        c.imported)
    ON CONFLICT ON CONSTRAINT uq_containers_name DO NOTHING;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the name');
    END IF;
    PERFORM public.write_container_parts(c.id, c.namespace_id, p_env, p_ports, p_mounts);
    IF v_volumes IS NOT NULL THEN
        -- The volume shows its containers: a server writes its event in another transaction.
        INSERT INTO public.mount_changes (volume_id, namespace_id)
        SELECT v.id, v.namespace_id FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name = ANY (v_volumes);
    END IF;
    -- Before the history, which refers to the operation. Others of the same unit of work belong to it, too.
    INSERT INTO public.operations
        (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
    SELECT o.operation_id, caller, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
    FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
    ON CONFLICT (operation_id) DO NOTHING;
    INSERT INTO public.container_status_history
        (container_id, namespace_id, current_status, triggered_by, user_id, operation_id)
    VALUES (c.id, c.namespace_id, 'pending', 'user', caller, (p_operation ->> 'operation_id')::uuid);
    INSERT INTO public.reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    VALUES ('container', c.id, home.cluster_name, c.namespace_id, clock_timestamp());
END
$$;

COMMENT ON FUNCTION write_container IS
    'Makes a container that was admitted, with all that belongs to it but its record; refuses what is outdated.';
GRANT EXECUTE ON FUNCTION write_container TO pilothouse_app, pilothouse_system;
