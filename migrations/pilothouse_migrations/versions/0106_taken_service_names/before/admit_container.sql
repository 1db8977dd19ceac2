-- Reads all facts that the rules for a new container need, and takes an id and the time. It locks nothing that outlives
-- its transaction but the id of the request. The server then decides and renders, and calls write_container, which
-- compares these facts with what it finds. A create took ten round trips before; a round trip costs the server and
-- PostgreSQL more than what it does.
--
-- All statements go by keys. PostgreSQL assumes ten elements for an array of unknown length and would look for a
-- cheaper plan at each call; hence the generic plans and no sequential scans.
CREATE OR REPLACE FUNCTION admit_container(
    p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[],
    p_secrets text[], p_volumes text[],
    OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint,
    OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text,
    OUT deletion_requested_at timestamptz, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric,
    OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text,
    OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamptz)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    moment := transaction_timestamp();
    SELECT b.ours, b.method, b.request_hmac, b.response INTO ours, method, request_hmac, response
    FROM public.begin_request(p_user_id, p_request_id) AS b;
    IF method IS NOT NULL OR NOT ours THEN
        RETURN;
    END IF;
    SELECT n.id, n.uid, n.cluster_name, n.kubernetes_name, n.status, n.deletion_requested_at,
           n.resource_quota::text, n.row_version
    INTO namespace_id, namespace_uid, cluster_name, kubernetes_name, status, deletion_requested_at, quota,
        namespace_version
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT CASE WHEN c.deletion_requested_at IS NULL THEN 'taken' ELSE 'being_deleted' END INTO name_taken
    FROM public.containers AS c WHERE c.namespace_id = admit_container.namespace_id AND c.name = p_name;
    IF quota IS NOT NULL THEN
        SELECT coalesce(sum(q.containers), 0), coalesce(sum(q.cpu_millicores), 0),
               coalesce(sum(q.memory_bytes), 0)
        INTO used_containers, used_cpu, used_memory
        FROM public.quota_counters AS q WHERE q.namespace_id = admit_container.namespace_id;
    END IF;
    IF cardinality(p_services) > 0 THEN
        SELECT jsonb_object_agg(p.service_name, c.name)::text INTO services
        FROM public.port_mappings AS p JOIN public.containers AS c ON c.id = p.container_id
        WHERE p.namespace_id = admit_container.namespace_id AND p.service_name = ANY (p_services);
    END IF;
    IF cardinality(p_config_maps) > 0 THEN
        SELECT array_agg(m.name) INTO config_maps FROM public.config_maps AS m
        WHERE m.namespace_id = admit_container.namespace_id AND m.name = ANY (p_config_maps)
          AND m.deletion_requested_at IS NULL;
    END IF;
    IF cardinality(p_secrets) > 0 THEN
        SELECT jsonb_object_agg(s.name, s.type)::text INTO secrets FROM public.secrets AS s
        WHERE s.namespace_id = admit_container.namespace_id AND s.name = ANY (p_secrets)
          AND s.deletion_requested_at IS NULL;
    END IF;
    IF cardinality(p_volumes) > 0 THEN
        SELECT jsonb_agg(public.volume_definition(v) ORDER BY v.name)::text INTO volumes
        FROM public.volumes AS v
        WHERE v.namespace_id = admit_container.namespace_id AND v.name = ANY (p_volumes)
          AND v.deletion_requested_at IS NULL;
    END IF;
    container_id := nextval('public.containers_id_seq');
END
$$;

COMMENT ON FUNCTION admit_container IS
    'What decides whether a container may be made, as the caller sees it, with an id for it and the time.';
GRANT EXECUTE ON FUNCTION admit_container TO pilothouse_app, pilothouse_system;
