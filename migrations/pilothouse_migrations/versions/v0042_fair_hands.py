"""No namespace holds all workers of a cluster, however long its work takes.

Work was leased fairly, but not for how long it is in hand: applies of one namespace that hang, as with an admission
webhook that does not answer, came to hold every worker of the cluster. The new form of `lease_work` is told of which
namespaces how much is in hand. A namespace gets no more than three times of what it leaves free (the threshold that
switches use for shared buffers, after Choudhury and Hahne): one alone comes to three quarters, two to three sevenths
each, and there is always something left for another.

What may be leased is taken namespace by namespace in turns, each its oldest first, what stays four times as often as
what goes. Servers of the release before call the form that is there.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

_SIGNATURE = "lease_work(text, double precision, integer, text[], integer[], bigint[], integer[])"
_FREE = "w.due_at <= v_now AND (w.leased_until IS NULL OR w.leased_until <= v_now)"
_LEASED = """
                SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                    leased_until = v_now + make_interval(secs => p_lease_seconds),
                    due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()"""
_RETURNED = """
                RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                    w.lease_owner::text, w.lease_epoch, NULL::double precision;"""


def _due(going: str, weight: str) -> str:
    return f"""
                            (SELECT w.resource_type, w.resource_id,
                                 row_number() OVER (ORDER BY w.due_at) * {weight} AS place
                             FROM public.reconcile_work AS w
                             WHERE w.namespace_id = home.id AND {going} AND {_FREE}
                             ORDER BY w.due_at LIMIT home.room)"""


def upgrade() -> None:
    run(f"""
CREATE FUNCTION lease_work(
    p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[],
    p_busy bigint[], p_held integer[])
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
        v_due integer;
        v_taken integer;
        v_homes bigint[];
        v_share integer;
        v_full bigint[];
    BEGIN
        WHILE v_cluster IS NOT NULL LOOP
            v_next := least(v_next, (
                SELECT w.due_at FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at > v_now ORDER BY w.due_at LIMIT 1));
            v_rows := coalesce(p_free[array_position(p_clusters, v_cluster)], p_most);
            v_due := 0;
            v_full := '{{}}';
            IF v_rows > 0 THEN
                v_due := (SELECT count(*) FROM (
                    SELECT FROM public.reconcile_work AS w WHERE w.cluster_name = v_cluster AND {_FREE}
                    ORDER BY w.due_at LIMIT v_rows + 1) AS s);
            END IF;
            -- Where so little is due and in hand that nobody can come to have too much, nothing is weighed.
            IF v_due > v_rows
               OR v_due > 0 AND 4 * v_due + coalesce((SELECT max(h) FROM unnest(p_held) AS h), 0) > 3 * v_rows
                  AND p_held IS NOT NULL THEN
                -- By one step for each namespace and kind: where it is left to the planner, it reads all that is due.
                v_homes := ARRAY(
                    SELECT n.id FROM public.namespaces AS n CROSS JOIN LATERAL (
                        (SELECT w.due_at FROM public.reconcile_work AS w
                         WHERE w.namespace_id = n.id AND NOT w.going AND {_FREE} ORDER BY w.due_at LIMIT 1)
                        UNION ALL
                        (SELECT w.due_at FROM public.reconcile_work AS w
                         WHERE w.namespace_id = n.id AND w.going AND {_FREE} ORDER BY w.due_at LIMIT 1)
                        LIMIT 1) AS one
                    WHERE n.cluster_name = v_cluster AND n.deleted_at IS NULL);
                -- Twice its even share, as others may have less: what is left goes to whom it is left.
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
                        SELECT e.resource_type, e.resource_id, e.place FROM ({_due("NOT w.going", "1")}
                            UNION ALL{
        _due("w.going", "CASE WHEN w.due_at < v_now - interval '30 seconds' THEN 1 ELSE 4 END")
    }) AS e
                        ORDER BY e.place LIMIT home.room) AS s
                    WHERE home.room > 0
                    -- Which come first where there are more namespaces than rows is left to chance.
                    ORDER BY s.place, random() LIMIT v_rows),
                due AS MATERIALIZED (
                    SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                    JOIN shares AS s ON s.resource_type = w.resource_type AND s.resource_id = w.resource_id
                    WHERE {_FREE} FOR UPDATE OF w SKIP LOCKED)
                UPDATE public.reconcile_work AS w{_LEASED}
                FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id{
        _RETURNED
    }
                GET DIAGNOSTICS v_taken = ROW_COUNT;
                v_rows := v_rows - v_taken;
                IF v_rows > 0 AND p_held IS NOT NULL THEN
                    -- They have as much as they may.
                    v_full := v_homes;
                END IF;
            END IF;
            IF v_due > 0 AND v_rows > 0 THEN
                RETURN QUERY
                WITH due AS MATERIALIZED (
                    SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                    WHERE w.cluster_name = v_cluster AND {_FREE}
                      AND (w.namespace_id IS NULL OR NOT w.namespace_id = ANY (v_full))
                    ORDER BY w.due_at LIMIT v_rows FOR UPDATE SKIP LOCKED)
                UPDATE public.reconcile_work AS w{_LEASED}
                FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id{
        _RETURNED
    }
            END IF;
            v_cluster := (SELECT w.cluster_name FROM public.reconcile_work AS w
                          WHERE w.cluster_name > v_cluster ORDER BY w.cluster_name LIMIT 1);
        END LOOP;
        RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::text, NULL::bigint, NULL::integer, NULL::text, NULL::bigint,
            extract(epoch FROM v_next - v_now)::double precision;
    END
    $$;

COMMENT ON FUNCTION {_SIGNATURE} IS
    'Leases due work, so much of each cluster as is free, of no namespace more workers than leave some for others; '
    'returns it, and last a row that says when more will be due.';

GRANT EXECUTE ON FUNCTION {_SIGNATURE} TO @system@;
""")


def downgrade() -> None:
    run(f"DROP FUNCTION {_SIGNATURE};")
