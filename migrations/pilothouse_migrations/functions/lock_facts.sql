-- Takes the locks of a write of a container in their order (namespace, quota, services, volumes), and compares what the
-- server read before it decided with what there is now. Where something changed it raises a serialization failure, and
-- the server reads the facts again; so every refusal is decided and worded in one place. The namespace is compared by
-- its row_version, which each write of its row raises: its state, its cluster and its quota are in the row.
--
-- p_cpu and p_memory are what the container will count, p_limits what the namespace may have; null: nothing is counted.
CREATE OR REPLACE FUNCTION lock_facts(
    p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb,
    OUT cluster text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    unchanged boolean;
    v_volumes text[];
    used record;
    own record;
BEGIN
    SELECT n.cluster_name, n.row_version = p_namespace_version INTO cluster, unchanged
    FROM public.namespaces AS n WHERE n.id = p_namespace_id FOR SHARE;
    IF unchanged IS NOT TRUE THEN
        PERFORM public.refuse_outdated('the namespace');
    END IF;
    IF p_limits IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || p_namespace_id, 0));
        SELECT coalesce(sum(q.containers), 0) AS containers, coalesce(sum(q.cpu_millicores), 0) AS cpu,
               coalesce(sum(q.memory_bytes), 0) AS memory
        INTO used FROM public.quota_counters AS q WHERE q.namespace_id = p_namespace_id;
        -- A container that changes counts already.
        SELECT count(*) AS containers, coalesce(sum(o.quota_cpu_millicores), 0) AS cpu,
               coalesce(sum(o.quota_memory_bytes), 0) AS memory
        INTO own FROM public.containers AS o
        WHERE o.id = p_container_id AND o.deletion_requested_at IS NULL;
        IF used.containers - own.containers + 1 > p_limits[1]
            OR p_cpu > 0 AND used.cpu - own.cpu + p_cpu > p_limits[2]
            OR p_memory > 0 AND used.memory - own.memory + p_memory > p_limits[3] THEN
            PERFORM public.refuse_outdated('what the quota leaves');
        END IF;
    END IF;
    -- An expression that contains a query costs its start even where it is not reached, so these are statements.
    IF cardinality(p_services) > 0 THEN
        -- No constraint keeps a name to one container. The creation of a Service of its own waits for the namespace.
        PERFORM pg_advisory_xact_lock(hashtextextended('service/' || p_namespace_id || '/' || s.name, 0))
        FROM (SELECT unnest(p_services) AS name ORDER BY 1) AS s;
        PERFORM FROM public.port_mappings AS p
        WHERE p.namespace_id = p_namespace_id AND p.service_name = ANY (p_services);
        IF FOUND THEN
            PERFORM public.refuse_outdated('a service');
        END IF;
        PERFORM FROM public.services AS s
        WHERE s.namespace_id = p_namespace_id AND s.name = ANY (p_services) AND s.owner IS NULL;
        IF FOUND THEN
            PERFORM public.refuse_outdated('a service');
        END IF;
    END IF;
    IF cardinality(p_config_maps) > 0 THEN
        PERFORM FROM public.config_maps AS m
        WHERE m.namespace_id = p_namespace_id AND m.name = ANY (p_config_maps) AND m.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_config_maps);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a config map');
        END IF;
    END IF;
    IF cardinality(p_secrets) > 0 THEN
        PERFORM FROM public.secrets AS s
        WHERE s.namespace_id = p_namespace_id AND s.name = ANY (p_secrets) AND s.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_secrets);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a secret');
        END IF;
    END IF;
    IF p_volumes IS NOT NULL THEN
        -- A deletion has locked the namespace, and a change of a volume its row.
        v_volumes := ARRAY(SELECT d ->> 'name' FROM jsonb_array_elements(p_volumes) AS d);
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.name = ANY (v_volumes) ORDER BY v.id FOR SHARE;
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.name = ANY (v_volumes) AND v.deletion_requested_at IS NULL
        HAVING jsonb_agg(public.volume_definition(v) ORDER BY v.name) = p_volumes;
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a volume');
        END IF;
    END IF;
END
$$;

COMMENT ON FUNCTION lock_facts IS
    'Locks what decides whether a container may be written, refuses what is outdated, and returns its cluster.';
GRANT EXECUTE ON FUNCTION lock_facts TO pilothouse_app, pilothouse_system;
