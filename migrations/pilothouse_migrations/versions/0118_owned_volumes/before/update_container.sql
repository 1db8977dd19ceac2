-- Writes a change of what is wanted of a container, with all that belongs to it but its record: its row, its parts where
-- they differ (p_parts), a line of its history (p_history), the work for the reconciler, and the volumes that it began
-- or ceased to mount (p_mounted). A unit of work calls it for each container and ends with put_changes;
-- change_container does both in one message. A change took up to ten round trips before.
--
-- The row is compared by its row_version, which each of its writes raises. A transaction that has locked the row before
-- it read it is never refused. lock_facts compares all other facts; p_namespace_version is null where there are none.
CREATE OR REPLACE FUNCTION update_container(
    p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[],
    p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[],
    p_volumes jsonb,
    OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    c public.containers := jsonb_populate_record(NULL::public.containers, p_container);
    caller bigint := public.app_user_id();
    deleting boolean := (p_container ->> 'deleting')::boolean;
    v_image_id bigint;
BEGIN
    IF p_namespace_version IS NOT NULL THEN
        PERFORM public.lock_facts(c.namespace_id, c.id, c.quota_cpu_millicores, c.quota_memory_bytes,
            p_namespace_version, p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    END IF;
    IF p_container ? 'image' THEN
        v_image_id := public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}');
    END IF;
    UPDATE public.containers AS t
    SET display_name = c.display_name, cpu_request = c.cpu_request, cpu_limit = c.cpu_limit,
        memory_request = c.memory_request, memory_limit = c.memory_limit, labels = c.labels,
        annotations = c.annotations, spec = c.spec, desired_state = c.desired_state, replicas = c.replicas,
        drift_policy = c.drift_policy, hold_rollout = c.hold_rollout, restart_requested_at = c.restart_requested_at,
        status = c.status, reason = c.reason, message = c.message, generation = c.generation,
        kubernetes_name = coalesce(c.kubernetes_name, t.kubernetes_name),
        image_id = coalesce(v_image_id, t.image_id),
        revision_number = coalesce((p_container #>> '{revision,number}')::integer, t.revision_number),
        quota_cpu_millicores = coalesce(c.quota_cpu_millicores, t.quota_cpu_millicores),
        quota_memory_bytes = coalesce(c.quota_memory_bytes, t.quota_memory_bytes),
        deletion_requested_at = CASE WHEN deleting THEN coalesce(c.updated_at, now()) ELSE t.deletion_requested_at END,
        resource_version = t.resource_version + 1, updated_at = coalesce(c.updated_at, now()), updated_by = caller
    WHERE t.id = c.id AND t.row_version = c.row_version
    RETURNING t.row_version, t.resource_version, t.updated_at
    INTO new_row_version, new_resource_version, moment;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the container');
    END IF;
    IF p_parts IS NOT NULL THEN
        DELETE FROM public.environment_variables AS e WHERE e.container_id = c.id;
        DELETE FROM public.port_mappings AS p WHERE p.container_id = c.id;
        DELETE FROM public.container_volumes AS m WHERE m.container_id = c.id;
        PERFORM public.write_container_parts(c.id, c.namespace_id, p_parts -> 'env', p_parts -> 'ports',
            p_parts -> 'mounts');
    END IF;
    IF cardinality(p_services) > 0 AND p_limits[4] IS NOT NULL THEN
        IF public.count_services(c.namespace_id) > p_limits[4] THEN
            PERFORM public.refuse_outdated('what the quota leaves');
        END IF;
    END IF;
    -- A server writes the rows and events of its Services in another transaction. Servers of 0.2 do not say whether
    -- they changed.
    IF coalesce((p_container ->> 'services_changed')::boolean, true) THEN
        INSERT INTO public.service_changes (container_id, namespace_id) VALUES (c.id, c.namespace_id);
    END IF;
    -- Before the history, which refers to the operation. Others of the same unit of work belong to it, too.
    IF p_operation IS NOT NULL THEN
        INSERT INTO public.operations
            (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
        SELECT o.operation_id, caller, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
        FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
        ON CONFLICT (operation_id) DO NOTHING;
    END IF;
    IF p_history IS NOT NULL THEN
        INSERT INTO public.container_status_history
            (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by, user_id,
            operation_id)
        SELECT c.id, c.namespace_id, h.previous_status, h.current_status, h.reason, h.message, h.triggered_by, caller,
               (p_operation ->> 'operation_id')::uuid
        FROM jsonb_populate_record(NULL::public.container_status_history, p_history) AS h;
    END IF;
    -- Only where the desired state differs; servers of 0.2 send none.
    IF p_container ? 'revision' THEN
        PERFORM public.write_revision('container', c.id, c.namespace_id, p_container -> 'revision');
    END IF;
    INSERT INTO public.reconcile_work AS w
        (resource_type, resource_id, cluster_name, namespace_id, going, due_at)
    VALUES ('container', c.id, p_container ->> 'cluster_name', c.namespace_id, deleting, clock_timestamp())
    ON CONFLICT (resource_type, resource_id) DO UPDATE
    SET due_at = LEAST(w.due_at, EXCLUDED.due_at), going = EXCLUDED.going, attempts = 0, updated_at = clock_timestamp();
    IF cardinality(p_mounted) > 0 THEN
        INSERT INTO public.mount_changes (volume_id, namespace_id)
        SELECT v.id, v.namespace_id FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name = ANY (p_mounted);
    END IF;
END
$$;

COMMENT ON FUNCTION update_container IS
    'Changes what is wanted of a container, with all that belongs to the change but its record.';
GRANT EXECUTE ON FUNCTION update_container TO pilothouse_app, pilothouse_system;
