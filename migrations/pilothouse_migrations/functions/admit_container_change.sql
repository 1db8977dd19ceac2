-- Reads a container, its namespace and what its quota leaves in one message; the server then decides and calls
-- change_container, which compares what was read with what it finds. Nothing is locked but, with p_lock, what a unit of
-- work will write (namespace, quota, container, in this order). No key of the container changes, so those who insert rows
-- that refer to it (usage, for many containers in one transaction) do not wait.
--
-- The container is one JSON document of all columns of its row and of the rows that belong to it, so a new column needs
-- no new result here. A test compares it with the server's own statement for a container.
CREATE OR REPLACE FUNCTION admit_container_change(
    p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean,
    OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint,
    OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text,
    OUT deletion_requested_at timestamptz, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric,
    OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    found_id bigint;
BEGIN
    moment := transaction_timestamp();
    SELECT b.ours, b.method, b.request_hmac, b.response INTO ours, method, request_hmac, response
    FROM public.begin_request(p_user_id, p_request_id) AS b;
    IF method IS NOT NULL OR NOT ours THEN
        RETURN;
    END IF;
    IF p_lock THEN
        PERFORM FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL FOR SHARE;
    END IF;
    SELECT n.id, n.uid, n.cluster_name, n.kubernetes_name, n.status, n.deletion_requested_at,
           n.resource_quota::text, n.row_version
    INTO namespace_id, namespace_uid, cluster_name, kubernetes_name, status, deletion_requested_at, quota,
        namespace_version
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_lock THEN
        IF quota IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || admit_container_change.namespace_id, 0));
        END IF;
        PERFORM FROM public.containers AS c
        WHERE c.namespace_id = admit_container_change.namespace_id AND c.name = p_name FOR NO KEY UPDATE;
    END IF;
    SELECT w.id, row_to_json(w)::text INTO found_id, container
    FROM (
        SELECT c.*,
               (SELECT u.username FROM public.users AS u WHERE u.id = c.created_by) AS creator,
               (SELECT json_agg(e ORDER BY e.position) FROM public.environment_variables AS e
                WHERE e.container_id = c.id AND e.container_name IS NULL) AS env,
               (SELECT json_agg(p ORDER BY p.id) FROM public.port_mappings AS p
                WHERE p.container_id = c.id) AS ports,
               (SELECT jsonb_agg(DISTINCT public.volume_definition(v))
                FROM public.container_volumes AS m JOIN public.volumes AS v ON v.id = m.volume_id
                WHERE m.container_id = c.id) AS mounted_volumes
        FROM public.containers AS c
        WHERE c.namespace_id = admit_container_change.namespace_id AND c.name = p_name) AS w;
    IF quota IS NOT NULL AND container IS NOT NULL THEN
        SELECT coalesce(sum(q.containers), 0), coalesce(sum(q.cpu), 0), coalesce(sum(q.memory), 0)
        INTO used_containers, used_cpu, used_memory
        FROM (
            SELECT u.containers, u.cpu_millicores AS cpu, u.memory_bytes AS memory
            FROM public.quota_counters AS u WHERE u.namespace_id = admit_container_change.namespace_id
            UNION ALL
            SELECT -1, -o.quota_cpu_millicores, -o.quota_memory_bytes FROM public.containers AS o
            WHERE o.id = found_id AND o.deletion_requested_at IS NULL) AS q;
    END IF;
END
$$;

COMMENT ON FUNCTION admit_container_change IS
    'A container as the caller sees it, with what else decides whether it may be changed, and the time.';
GRANT EXECUTE ON FUNCTION admit_container_change TO pilothouse_app, pilothouse_system;
