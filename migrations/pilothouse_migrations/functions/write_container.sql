-- The second of the two messages that create a container: takes the locks in their order (request, namespace, quota),
-- compares what admit_container read with what there is now, and writes. Where something changed it raises a
-- serialization failure and the server begins again, so every refusal is decided and worded in one place.
--
-- The rows are written as the app role under row-level security; put_changes checks and writes the rest. The caller's
-- reach is computed for the container's namespace only: a smaller reach allows no more.
CREATE OR REPLACE FUNCTION write_container(
    p_user_id bigint, p_operation_id uuid, p_container jsonb, p_env jsonb, p_ports jsonb, p_quota jsonb,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_audit jsonb, p_hashes bytea[],
    p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    c public.containers;
    home record;
    used record;
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true),
        set_config('app.operation_id', p_operation_id::text, true);
    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);
    c := jsonb_populate_record(NULL::public.containers, p_container);
    -- The locks, in their order: request, namespace, quota. The primary key of idempotency_keys decides whether the
    -- request was served in the meantime.
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
        PERFORM public.refuse_outdated('the request');
    END IF;
    SELECT n.cluster_name INTO home FROM public.namespaces AS n
    WHERE n.id = c.namespace_id AND n.deleted_at IS NULL AND n.deletion_requested_at IS NULL
      AND n.status = 'active' AND n.resource_quota IS NOT DISTINCT FROM p_quota
    FOR SHARE;
    IF NOT FOUND THEN
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
    INSERT INTO public.containers (
        id, uid, name, display_name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit,
        memory_request, memory_limit, created_at, updated_at, created_by, updated_by, labels, annotations, spec,
        desired_state, replicas, quota_cpu_millicores, quota_memory_bytes, drift_policy, hold_rollout,
        restart_requested_at)
    VALUES (
        c.id, c.uid, c.name, c.display_name, c.namespace_id,
        public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}'),
        c.kubernetes_name, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.created_at,
        c.updated_at, p_user_id, p_user_id, c.labels, c.annotations, c.spec, c.desired_state, c.replicas,
        c.quota_cpu_millicores, c.quota_memory_bytes, c.drift_policy, c.hold_rollout, c.restart_requested_at)
    ON CONFLICT ON CONSTRAINT uq_containers_name DO NOTHING;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the name');
    END IF;
    IF p_env IS NOT NULL THEN
        INSERT INTO public.environment_variables
            (container_id, namespace_id, position, name, value, value_from, source_name, source_key, optional)
        SELECT c.id, c.namespace_id, e.position, e.name, e.value, e.value_from, e.source_name, e.source_key,
               e.optional
        FROM jsonb_to_recordset(p_env) AS e(
            position int, name text, value text, value_from text, source_name text, source_key text,
            optional boolean);
    END IF;
    IF p_ports IS NOT NULL THEN
        INSERT INTO public.port_mappings (container_id, namespace_id, name, container_port, host_port, protocol,
            app_protocol, service_type, service_name, service_port, node_port)
        SELECT c.id, c.namespace_id, r.name, r.container_port, r.host_port, r.protocol, r.app_protocol,
               r.service_type, r.service_name, r.service_port, r.node_port
        FROM ROWS FROM (jsonb_to_recordset(p_ports) AS (
            name text, container_port int, host_port int, protocol text, app_protocol text, service_type text,
            service_name text, service_port int, node_port int)) WITH ORDINALITY AS r
        ORDER BY r.ordinality;
    END IF;
    -- Before the history, which refers to the operation.
    INSERT INTO public.operations
        (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
    SELECT o.operation_id, p_user_id, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
    FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o;
    INSERT INTO public.container_status_history
        (container_id, namespace_id, current_status, triggered_by, user_id, operation_id)
    VALUES (c.id, c.namespace_id, 'pending', 'user', p_user_id, p_operation_id);
    INSERT INTO public.reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    VALUES ('container', c.id, home.cluster_name, c.namespace_id, clock_timestamp());
    PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
END
$$;

COMMENT ON FUNCTION write_container IS
    'Makes a container that was admitted, with all that belongs to the change; refuses what is outdated.';
GRANT EXECUTE ON FUNCTION write_container TO pilothouse_app;
