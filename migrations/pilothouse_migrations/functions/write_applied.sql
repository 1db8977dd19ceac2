-- Writes what came of applying containers, in one message. The new values were computed from the rows as they were
-- loaded, so only rows that nobody has written since, and whose lease is still held, are written. It returns these and
-- what was lost; the caller handles the rest one by one. Order of locks: containers, their work, the pending row.
CREATE OR REPLACE FUNCTION write_applied(
    p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[],
    p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[])
    RETURNS TABLE(id bigint, lost boolean)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_same bigint[];
    v_held bigint[];
BEGIN
    SELECT coalesce(array_agg(s.id), '{}') INTO v_same FROM (
        SELECT c.id FROM public.containers AS c
        JOIN unnest(p_ids, p_row_versions) AS w(id, row_version) ON w.id = c.id AND w.row_version = c.row_version
        ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED) AS s;
    SELECT coalesce(array_agg(h.resource_id), '{}') INTO v_held FROM (
        SELECT w.resource_id FROM public.reconcile_work AS w
        JOIN unnest(p_ids, p_epochs, p_owners) AS l(id, epoch, owner)
          ON l.id = w.resource_id AND l.epoch = w.lease_epoch AND l.owner = w.lease_owner
        WHERE w.resource_type = 'container' AND w.resource_id = ANY (v_same)
        ORDER BY w.resource_id FOR UPDATE OF w) AS h;
    UPDATE public.containers AS c
    SET status = r.status, phase = NULLIF(r.phase, ''), reason = NULLIF(r.reason, ''),
        message = NULLIF(r.message, ''), ready_replicas = r.ready_replicas,
        deployment_name = NULLIF(r.deployment_name, ''), replica_set_name = NULLIF(r.replica_set_name, ''),
        pod_name = NULLIF(r.pod_name, ''), pod_ip = NULLIF(r.pod_ip, ''), host_ip = NULLIF(r.host_ip, ''),
        restart_count = r.restart_count, started_at = r.started_at, finished_at = r.finished_at,
        conditions = r.conditions, stale_since = r.stale_since, observed_generation = r.observed_generation,
        updated_at = r.updated_at
    FROM jsonb_to_recordset(p_rows) AS r(
        id bigint, status text, phase text, reason text, message text, ready_replicas int, deployment_name text,
        replica_set_name text, pod_name text, pod_ip text, host_ip text, restart_count int,
        started_at timestamptz, finished_at timestamptz, conditions jsonb, stale_since timestamptz,
        observed_generation bigint, updated_at timestamptz)
    WHERE c.id = r.id AND r.id = ANY (v_held);
    INSERT INTO public.container_status_history
        (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by)
    SELECT r.container_id, r.namespace_id, r.previous_status, r.current_status, NULLIF(r.reason, ''),
        NULLIF(r.message, ''), r.triggered_by
    FROM jsonb_to_recordset(p_history) AS r(
        container_id bigint, namespace_id bigint, previous_status text, current_status text, reason text,
        message text, triggered_by text)
    WHERE r.container_id = ANY (v_held);
    -- Work that was requested during the lease is due before the lease ends, and stays due. After the lease has run
    -- out the row is due anyway, and a request leaves no trace, so the work is due one more time.
    UPDATE public.reconcile_work AS w
    SET due_at = least(CASE WHEN w.due_at < w.leased_until OR w.leased_until <= clock_timestamp()
                            THEN w.due_at END,
                       clock_timestamp() + make_interval(secs => d.seconds)),
        lease_owner = NULL, leased_until = NULL, last_error = NULL, attempts = 0, updated_at = clock_timestamp(),
        applied_objects = coalesce(d.objects::jsonb, w.applied_objects)
    FROM unnest(p_ids, p_seconds, p_objects) AS d(id, seconds, objects)
    WHERE w.resource_type = 'container' AND w.resource_id = d.id AND d.id = ANY (v_held);
    IF cardinality(v_held) < cardinality(p_ids) THEN
        SELECT coalesce(jsonb_agg(e.value ORDER BY e.position), '[]'),
               coalesce(array_agg(p_messages[e.position] ORDER BY e.position), '{}')
        INTO p_events, p_messages
        FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e(value, position)
        WHERE (e.value ->> 'resource_id')::bigint = ANY (v_held);
    END IF;
    IF p_events <> '[]' THEN
        PERFORM public.put_changes('[]', '{}', p_events, p_messages);
    END IF;
    RETURN QUERY SELECT s.id, NOT s.id = ANY (v_held) FROM unnest(v_same) AS s(id);
END
$$;

COMMENT ON FUNCTION write_applied IS
    'Writes what came of applying containers, of those that are as they were loaded; returns them, and what was lost.';
GRANT EXECUTE ON FUNCTION write_applied TO pilothouse_system;
