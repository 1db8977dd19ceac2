-- Writes the observed columns of containers, with their history: the only place that lists these columns. Its caller has
-- locked the rows; those that are not in p_ids stay as they are. A server of release 0.2.0 gives no programs.
CREATE OR REPLACE FUNCTION write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    UPDATE public.containers AS c
    SET status = r.status, phase = nullif(r.phase, ''), reason = nullif(r.reason, ''),
        message = nullif(r.message, ''), ready_replicas = r.ready_replicas,
        observed_replicas = coalesce(r.observed_replicas, c.observed_replicas),
        deployment_name = nullif(r.deployment_name, ''), replica_set_name = nullif(r.replica_set_name, ''),
        pod_name = nullif(r.pod_name, ''), pod_ip = nullif(r.pod_ip, ''), host_ip = nullif(r.host_ip, ''),
        restart_count = r.restart_count, started_at = r.started_at, finished_at = r.finished_at,
        conditions = r.conditions, programs = coalesce(r.programs, '[]'), stale_since = r.stale_since,
        observed_generation = r.observed_generation, updated_at = coalesce(r.updated_at, now())
    FROM jsonb_populate_recordset(NULL::public.containers, p_rows) AS r
    WHERE c.id = r.id AND r.id = ANY (p_ids);
    IF p_history <> '[]' THEN
        INSERT INTO public.container_status_history
            (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by)
        SELECT h.container_id, h.namespace_id, h.previous_status, h.current_status, nullif(h.reason, ''),
            nullif(h.message, ''), h.triggered_by
        FROM jsonb_populate_recordset(NULL::public.container_status_history, p_history) AS h
        WHERE h.container_id = ANY (p_ids);
    END IF;
END
$$;

COMMENT ON FUNCTION write_observed IS 'Writes the state of containers on their cluster, with its history.';
GRANT EXECUTE ON FUNCTION write_observed TO pilothouse_system;
