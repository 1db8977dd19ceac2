"""Work is leased in one message, and written back in one: `lease_work` and `write_applied`.

A worker looked for what is due in one transaction and leased it in another for each cluster: eight messages, of which
four were sent each second by a server that has nothing to do. Now it is one call, a transaction by itself. What is due
is found by the index, cluster by cluster, so that a look costs the same however many rows are not due; the names of the
clusters are found in the same index, each by one step.

What came of applying containers took nine messages a batch. What is written was computed from the rows as they were
loaded, so `write_applied` writes those that nobody has written since, and whose lease is held, ends the leases, and
puts the events, in one call. It returns what it wrote and what was lost; the rest is written as before, from the rows
as they are under their locks. The order of locks is the same: rows of containers, their work, the pending row last.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


LEASE = """
CREATE FUNCTION lease_work(
    p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[])
    RETURNS TABLE (resource_type text, resource_id bigint, cluster_name text, namespace_id bigint, attempts integer,
        lease_owner text, lease_epoch bigint, next_seconds double precision)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
    AS $$
    #variable_conflict use_column
    DECLARE
        -- One time for all: what is not due now is due later.
        v_now timestamptz := statement_timestamp();
        v_cluster text := (SELECT w.cluster_name FROM public.reconcile_work AS w ORDER BY w.cluster_name LIMIT 1);
        v_next timestamptz;
        v_rows integer;
    BEGIN
        WHILE v_cluster IS NOT NULL LOOP
            v_next := least(v_next, (
                SELECT w.due_at FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at > v_now ORDER BY w.due_at LIMIT 1));
            v_rows := coalesce(p_free[array_position(p_clusters, v_cluster)], p_most);
            IF v_rows > 0 THEN
                RETURN QUERY
                WITH due AS MATERIALIZED (
                    SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                    WHERE w.cluster_name = v_cluster AND w.due_at <= v_now
                      AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                    ORDER BY w.due_at LIMIT v_rows FOR UPDATE SKIP LOCKED)
                UPDATE public.reconcile_work AS w
                SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                    leased_until = v_now + make_interval(secs => p_lease_seconds),
                    due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()
                FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id
                RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                    w.lease_owner::text, w.lease_epoch, NULL::double precision;
            END IF;
            v_cluster := (SELECT w.cluster_name FROM public.reconcile_work AS w
                          WHERE w.cluster_name > v_cluster ORDER BY w.cluster_name LIMIT 1);
        END LOOP;
        RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::text, NULL::bigint, NULL::integer, NULL::text, NULL::bigint,
            extract(epoch FROM v_next - v_now)::double precision;
    END
    $$;

COMMENT ON FUNCTION lease_work(text, double precision, integer, text[], integer[]) IS
    'Leases due work, so much of each cluster as is free; returns it, and last a row that says when more will be due.';

GRANT EXECUTE ON FUNCTION lease_work(text, double precision, integer, text[], integer[]) TO @system@;
"""

WRITE = """
CREATE FUNCTION write_applied(
    p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[],
    p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[])
    RETURNS TABLE (id bigint, lost boolean)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
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
        -- Work that was asked for during the lease is due before its end, and stays due.
        UPDATE public.reconcile_work AS w
        SET due_at = least(CASE WHEN w.due_at < w.leased_until THEN w.due_at END,
                           clock_timestamp() + make_interval(secs => d.seconds)),
            lease_owner = NULL, leased_until = NULL, last_error = NULL, attempts = 0, updated_at = clock_timestamp()
        FROM unnest(p_ids, p_seconds) AS d(id, seconds)
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

COMMENT ON FUNCTION write_applied(bigint[], bigint[], text[], bigint[], double precision[], jsonb, jsonb, jsonb,
    bytea[]) IS
    'Writes what came of applying containers, of those that are as they were loaded; returns them, and what was lost.';

GRANT EXECUTE ON FUNCTION write_applied(bigint[], bigint[], text[], bigint[], double precision[], jsonb, jsonb, jsonb,
    bytea[]) TO @system@;
"""


def upgrade() -> None:
    _lease()
    _write()


def _lease() -> None:
    run(LEASE)


def _write() -> None:
    run(WRITE)


def downgrade() -> None:
    run("""
DROP FUNCTION write_applied(bigint[], bigint[], text[], bigint[], double precision[], jsonb, jsonb, jsonb, bytea[]);
DROP FUNCTION lease_work(text, double precision, integer, text[], integer[]);
""")
