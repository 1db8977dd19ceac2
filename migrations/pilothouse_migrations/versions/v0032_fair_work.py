"""Work is leased fairly: to each namespace its share of a cluster, and what is new or changed before what is to go.

What was due was leased in the order of time, so that a namespace with thousands of containers to delete kept those of
all others waiting. Where more of a cluster is due than may be leased, each namespace now has the same share of it, and
within a namespace four that stay are taken for one that goes, until that one has waited for half a minute. What is left
of the shares goes to what has waited longest. Where all that is due may be leased, nothing is weighed.

The namespaces with something due are found by one step each in an index, which takes the place of the one by namespace
alone. Servers of the release before call the same function; what they enqueue for a deletion counts as changed.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import v0025_work_in_one_message

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_SIGNATURE = "lease_work(text, double precision, integer, text[], integer[])"
_LEASED = """
                SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                    leased_until = v_now + make_interval(secs => p_lease_seconds),
                    due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()"""
_RETURNED = """
                RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                    w.lease_owner::text, w.lease_epoch, NULL::double precision;"""
_FREE = "w.due_at <= v_now AND (w.leased_until IS NULL OR w.leased_until <= v_now)"


def upgrade() -> None:
    run("""
ALTER TABLE reconcile_work ADD COLUMN going boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN reconcile_work.going IS
    'Whether the resource is to be deleted: it gives way to what is new or changed.';

CREATE INDEX idx_reconcile_work_share ON reconcile_work (namespace_id, going, due_at);
DROP INDEX idx_reconcile_work_namespace_id;
""")
    run(f"""
CREATE OR REPLACE FUNCTION lease_work(
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
        v_due integer;
        v_taken integer;
        v_homes bigint[];
        v_share integer;
    BEGIN
        WHILE v_cluster IS NOT NULL LOOP
            v_next := least(v_next, (
                SELECT w.due_at FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at > v_now ORDER BY w.due_at LIMIT 1));
            v_rows := coalesce(p_free[array_position(p_clusters, v_cluster)], p_most);
            v_due := 0;
            IF v_rows > 0 THEN
                v_due := (SELECT count(*) FROM (
                    SELECT FROM public.reconcile_work AS w WHERE w.cluster_name = v_cluster AND {_FREE}
                    ORDER BY w.due_at LIMIT v_rows + 1) AS s);
            END IF;
            IF v_due > v_rows THEN
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
                v_share := ceil(v_rows::float8 / greatest(1, cardinality(v_homes)));
                RETURN QUERY
                WITH shares AS MATERIALIZED (
                    SELECT s.resource_type, s.resource_id
                    FROM unnest(v_homes) AS home(id) CROSS JOIN LATERAL (
                        SELECT e.resource_type, e.resource_id, e.place FROM (
                            (SELECT w.resource_type, w.resource_id, row_number() OVER (ORDER BY w.due_at) AS place
                             FROM public.reconcile_work AS w
                             WHERE w.namespace_id = home.id AND NOT w.going AND {_FREE}
                             ORDER BY w.due_at LIMIT v_share)
                            UNION ALL
                            (SELECT w.resource_type, w.resource_id, row_number() OVER (ORDER BY w.due_at)
                                 * CASE WHEN w.due_at < v_now - interval '30 seconds' THEN 1 ELSE 4 END
                             FROM public.reconcile_work AS w
                             WHERE w.namespace_id = home.id AND w.going AND {_FREE}
                             ORDER BY w.due_at LIMIT v_share)) AS e
                        ORDER BY e.place LIMIT v_share) AS s
                    -- Which come first where there are more namespaces than rows is left to chance.
                    ORDER BY s.place, random() LIMIT v_rows),
                due AS MATERIALIZED (
                    SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                    JOIN shares AS s ON s.resource_type = w.resource_type AND s.resource_id = w.resource_id
                    WHERE {_FREE} FOR UPDATE OF w SKIP LOCKED)
                UPDATE public.reconcile_work AS w{_LEASED}
                FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id{_RETURNED}
                GET DIAGNOSTICS v_taken = ROW_COUNT;
                v_rows := v_rows - v_taken;
            END IF;
            IF v_due > 0 AND v_rows > 0 THEN
                RETURN QUERY
                WITH due AS MATERIALIZED (
                    SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                    WHERE w.cluster_name = v_cluster AND {_FREE}
                    ORDER BY w.due_at LIMIT v_rows FOR UPDATE SKIP LOCKED)
                UPDATE public.reconcile_work AS w{_LEASED}
                FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id{_RETURNED}
            END IF;
            v_cluster := (SELECT w.cluster_name FROM public.reconcile_work AS w
                          WHERE w.cluster_name > v_cluster ORDER BY w.cluster_name LIMIT 1);
        END LOOP;
        RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::text, NULL::bigint, NULL::integer, NULL::text, NULL::bigint,
            extract(epoch FROM v_next - v_now)::double precision;
    END
    $$;
""")


def downgrade() -> None:
    run(f"DROP FUNCTION {_SIGNATURE};")
    run(v0025_work_in_one_message.LEASE)
    run("""
CREATE INDEX idx_reconcile_work_namespace_id ON reconcile_work (namespace_id);
DROP INDEX idx_reconcile_work_share;
ALTER TABLE reconcile_work DROP COLUMN going;
""")
