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
    PERFORM public.write_observed(v_held, p_rows, p_history);
    PERFORM public.release_work(array_agg('container'::text), array_agg(d.id), array_agg(d.epoch), array_agg(d.owner),
        array_agg(d.seconds), array_agg(0), array_agg(NULL::text), array_agg(d.objects))
    FROM unnest(p_ids, p_epochs, p_owners, p_seconds, p_objects) AS d(id, epoch, owner, seconds, objects)
    WHERE d.id = ANY (v_held);
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
