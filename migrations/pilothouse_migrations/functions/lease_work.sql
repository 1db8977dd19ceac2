-- Leases due work for one server, in one message. Each lease raises lease_epoch, and a worker writes back under the
-- epoch it holds, so a worker that was frozen past its lease writes nothing stale.
--
-- Due work is found by index, cluster by cluster, so a look costs the same however many rows are not due. The names of
-- the clusters are found in the same index, one step each.
--
-- Fairness. Where more of a cluster is due than may be leased, namespaces take turns, each with its oldest work first.
-- Within a namespace, four resources that stay are taken for one that is being deleted, until that one has waited for
-- 30 seconds. p_busy and p_held say how much of which namespace is in hand: a namespace gets at most three times what
-- it leaves free (the threshold of Choudhury and Hahne for shared buffers). One namespace alone comes to three
-- quarters of the workers, two to three sevenths each, so applies that hang never hold all workers. Where so little is
-- due that nobody can get too much, none of this is computed, and no more is leased than was counted: each statement
-- here has a snapshot of its own, and work that is committed between two of them was not counted for its namespace.
CREATE OR REPLACE FUNCTION lease_work(
    p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[],
    p_busy bigint[], p_held integer[])
    RETURNS TABLE(resource_type text, resource_id bigint, cluster_name text, namespace_id bigint, attempts integer,
        lease_owner text, lease_epoch bigint, next_seconds double precision)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    -- One time for all clusters.
    v_now timestamptz := statement_timestamp();
    v_cluster text := (SELECT w.cluster_name FROM public.reconcile_work AS w ORDER BY w.cluster_name LIMIT 1);
    v_next timestamptz;
    v_rows integer;
    v_due integer;
    v_taken integer;
    v_homes bigint[];
    v_share integer;
    v_shared boolean;
BEGIN
    WHILE v_cluster IS NOT NULL LOOP
        v_next := least(v_next, (
            SELECT w.due_at FROM public.reconcile_work AS w
            WHERE w.cluster_name = v_cluster AND w.due_at > v_now ORDER BY w.due_at LIMIT 1));
        v_rows := coalesce(p_free[array_position(p_clusters, v_cluster)], p_most);
        v_due := 0;
        v_shared := false;
        IF v_rows > 0 THEN
            v_due := (SELECT count(*) FROM (
                SELECT FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                ORDER BY w.due_at LIMIT v_rows + 1) AS s);
        END IF;
        -- Shares are computed only where a namespace could get too much.
        IF v_due > v_rows
           OR v_due > 0 AND 4 * v_due + coalesce((SELECT max(h) FROM unnest(p_held) AS h), 0) > 3 * v_rows
              AND p_held IS NOT NULL THEN
            -- One index step for each namespace and kind; the planner by itself would read all that is due.
            v_homes := ARRAY(
                SELECT n.id FROM public.namespaces AS n CROSS JOIN LATERAL (
                    (SELECT w.due_at FROM public.reconcile_work AS w
                     WHERE w.namespace_id = n.id AND NOT w.going AND w.due_at <= v_now
                       AND (w.leased_until IS NULL OR w.leased_until <= v_now) ORDER BY w.due_at LIMIT 1)
                    UNION ALL
                    (SELECT w.due_at FROM public.reconcile_work AS w
                     WHERE w.namespace_id = n.id AND w.going AND w.due_at <= v_now
                       AND (w.leased_until IS NULL OR w.leased_until <= v_now) ORDER BY w.due_at LIMIT 1)
                    LIMIT 1) AS one
                WHERE n.cluster_name = v_cluster AND n.deleted_at IS NULL);
            -- Twice the even share, because others may have less due.
            v_share := ceil(2 * v_rows::float8 / greatest(1, cardinality(v_homes)));
            RETURN QUERY
            WITH homes AS MATERIALIZED (
                SELECT h.id, least(v_rows, v_share, CASE WHEN p_held IS NOT NULL THEN ceil(
                    (3 * v_rows - coalesce(b.held, 0))::float8 / (1 + 3 * cardinality(v_homes)))::integer
                    END) AS room
                FROM unnest(v_homes) AS h(id) LEFT JOIN unnest(p_busy, p_held) AS b(id, held) ON b.id = h.id),
            shares AS MATERIALIZED (
                SELECT s.resource_type, s.resource_id
                FROM homes AS home CROSS JOIN LATERAL (
                    SELECT e.resource_type, e.resource_id, e.place FROM (
                        (SELECT w.resource_type, w.resource_id,
                             row_number() OVER (ORDER BY w.due_at) AS place
                         FROM public.reconcile_work AS w
                         WHERE w.namespace_id = home.id AND NOT w.going AND w.due_at <= v_now
                           AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                         ORDER BY w.due_at LIMIT home.room)
                        UNION ALL
                        (SELECT w.resource_type, w.resource_id,
                             row_number() OVER (ORDER BY w.due_at)
                                 * CASE WHEN w.due_at < v_now - interval '30 seconds' THEN 1 ELSE 4 END AS place
                         FROM public.reconcile_work AS w
                         WHERE w.namespace_id = home.id AND w.going AND w.due_at <= v_now
                           AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                         ORDER BY w.due_at LIMIT home.room)) AS e
                    ORDER BY e.place LIMIT home.room) AS s
                WHERE home.room > 0
                -- With more namespaces than rows, chance decides which come first.
                ORDER BY s.place, random() LIMIT v_rows),
            due AS MATERIALIZED (
                SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                JOIN shares AS s ON s.resource_type = w.resource_type AND s.resource_id = w.resource_id
                WHERE w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now) FOR UPDATE OF w SKIP LOCKED)
            UPDATE public.reconcile_work AS w
            SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                leased_until = v_now + make_interval(secs => p_lease_seconds),
                due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()
            FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id
            RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                w.lease_owner::text, w.lease_epoch, NULL::double precision;
            GET DIAGNOSTICS v_taken = ROW_COUNT;
            v_rows := v_rows - v_taken;
            -- The namespaces have as much as they may; the rest is for work without a namespace.
            v_shared := p_held IS NOT NULL;
        ELSE
            v_rows := v_due;
        END IF;
        IF v_due > 0 AND v_rows > 0 THEN
            RETURN QUERY
            WITH due AS MATERIALIZED (
                SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                  AND (NOT v_shared OR w.namespace_id IS NULL OR NOT w.namespace_id = ANY (v_homes)
                      AND NOT EXISTS (
                          SELECT FROM public.namespaces AS n WHERE n.id = w.namespace_id AND n.deleted_at IS NULL))
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

COMMENT ON FUNCTION lease_work IS
    'Leases due work, fairly between namespaces; returns it, and last a row that says when more will be due.';
GRANT EXECUTE ON FUNCTION lease_work TO pilothouse_system;
