-- A first state reads rows whose events may not be numbered yet. It passes over the events of these ids later, because
-- it has shown their changes already.
CREATE OR REPLACE FUNCTION pending_event_ids(p_most integer DEFAULT 257)
    RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}')
FROM (SELECT c.id FROM public.pending_changes AS c
      WHERE c.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)
        AND cardinality(c.events) > 0
      ORDER BY c.id LIMIT p_most) AS p
$$;

COMMENT ON FUNCTION pending_event_ids IS
    'Ids of the pending rows with events that a snapshot sees: their events are in its rows already.';
GRANT EXECUTE ON FUNCTION pending_event_ids TO pilothouse_app, pilothouse_system;
