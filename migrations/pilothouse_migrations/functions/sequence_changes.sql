-- Numbers what is pending and returns the new events, so that the calling server can hand them to its watchers without
-- another read. It is called in autocommit by every server; the lock of stream_head lets one pass run at a time.
-- Mutations do not wait for it: they commit side by side, and PostgreSQL groups their flushes.
CREATE OR REPLACE FUNCTION sequence_changes(p_limit integer DEFAULT 200)
    RETURNS TABLE(revision bigint, resource_type text, namespace_id bigint, resource_name text, kind text, message
        bytea, labels jsonb, status text, labels_before jsonb, status_before text, pending_id bigint, mark bytea,
        audit_sequence bigint, history_id uuid, more boolean, aside integer, oldest_seconds double precision)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    pass record;
    set_aside integer := 0;
    goes_on boolean := false;
BEGIN
    IF EXISTS (SELECT FROM public.pending_changes AS p
               WHERE p.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)) THEN
        SELECT * INTO STRICT pass FROM public.number_visible(p_limit);
        set_aside := pass.aside;
        goes_on := pass.more;
        RETURN QUERY
        SELECT e.revision, e.resource_type::text, e.namespace_id, e.resource_name::text, e.kind::text, e.message,
               e.labels, e.status::text, e.labels_before, e.status_before::text, e.pending_id, e.mark,
               NULL::bigint, NULL::uuid, NULL::boolean, NULL::integer, NULL::double precision
        FROM public.events AS e WHERE e.revision > pass.revision_before ORDER BY e.revision;
    END IF;
    RETURN QUERY
    SELECT h.revision, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::bytea, NULL::jsonb, NULL::text,
           NULL::jsonb, NULL::text, NULL::bigint, h.event_mark, h.audit_sequence, h.history_id,
           goes_on, set_aside,
           coalesce(extract(epoch FROM clock_timestamp() - o.created_at), 0)::double precision
    FROM public.stream_head AS h
    LEFT JOIN LATERAL (SELECT p.created_at FROM public.pending_changes AS p WHERE p.id > h.pending_floor
                       ORDER BY p.id LIMIT 1) AS o ON true
    WHERE h.id = 1;
END
$$;

COMMENT ON FUNCTION sequence_changes IS
    'Numbers what is pending; returns the events that it numbered, and last a row of the head (resource_type null).';
GRANT EXECUTE ON FUNCTION sequence_changes TO pilothouse_system;
