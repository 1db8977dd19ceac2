-- Makes a container with all that belongs to it, but for its record and event: the only way to create one. A unit of work
-- calls it for each container and ends with put_changes; create_container does both in one message.
--
-- lock_facts compares what admit_container read with what there is now.
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
    cluster text;
BEGIN
    cluster := public.lock_facts(c.namespace_id, c.id, c.quota_cpu_millicores, c.quota_memory_bytes,
        p_namespace_version, p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    INSERT INTO public.containers (
        id, uid, name, display_name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit,
        memory_request, memory_limit, created_at, updated_at, created_by, updated_by, labels, annotations, spec,
        desired_state, replicas, quota_cpu_millicores, quota_memory_bytes, drift_policy, hold_rollout,
        restart_requested_at, imported, revision_number)
    VALUES (
        c.id, c.uid, c.name, c.display_name, c.namespace_id,
        public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}'),
        c.kubernetes_name, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.created_at,
        c.updated_at, caller, caller, c.labels, c.annotations, c.spec, c.desired_state, c.replicas,
        c.quota_cpu_millicores, c.quota_memory_bytes, c.drift_policy, c.hold_rollout, c.restart_requested_at,
        c.imported, coalesce((p_container #>> '{revision,number}')::integer, 0))
    ON CONFLICT ON CONSTRAINT uq_containers_name DO NOTHING;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the name');
    END IF;
    PERFORM public.write_container_parts(c.id, c.namespace_id, p_env, p_ports, p_mounts);
    IF p_volumes IS NOT NULL THEN
        -- The volume shows its containers: a server writes its event in another transaction.
        INSERT INTO public.mount_changes (volume_id, namespace_id)
        SELECT v.id, v.namespace_id FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name IN (SELECT d ->> 'name' FROM jsonb_array_elements(p_volumes) AS d);
    END IF;
    IF cardinality(p_services) > 0 THEN
        IF p_limits[4] IS NOT NULL THEN
            IF public.count_services(c.namespace_id) > p_limits[4] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
        -- A server writes the rows and events of its Services in another transaction.
        INSERT INTO public.service_changes (container_id, namespace_id) VALUES (c.id, c.namespace_id);
    END IF;
    IF p_container ? 'claims' THEN
        -- A server writes the rows and events of the claims in another transaction.
        INSERT INTO public.claim_changes (container_id, namespace_id, storage_bytes)
        VALUES (c.id, c.namespace_id, public.missing_claims(c.namespace_id, p_container -> 'claims'));
        IF p_limits[5] IS NOT NULL THEN
            IF public.count_storage(c.namespace_id) > p_limits[5] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
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
    -- Servers of 0.2 send none.
    IF p_container ? 'revision' THEN
        PERFORM public.write_revision('container', c.id, c.namespace_id, p_container -> 'revision');
    END IF;
    INSERT INTO public.reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    VALUES ('container', c.id, cluster, c.namespace_id, clock_timestamp());
END
$$;

COMMENT ON FUNCTION write_container IS
    'Makes a container that was admitted, with all that belongs to it but its record; refuses what is outdated.';
GRANT EXECUTE ON FUNCTION write_container TO pilothouse_app, pilothouse_system;
