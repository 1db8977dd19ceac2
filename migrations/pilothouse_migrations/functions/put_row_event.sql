-- Puts an event of a row that many statements change: one for each of the namespaces, null for none.
--
-- The event has no message. A watch reads the row as its caller when it sends it, so nothing is kept that a caller may
-- not see, and the labels name what is gone. It is called by constraint triggers that are deferred to the commit: after
-- them the transaction writes nothing and waits for nothing, as number_visible requires. They are rows of their own,
-- next to that of put_changes, with later ids.
CREATE OR REPLACE FUNCTION put_row_event(
    p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The transaction gets its id before the row does (number_visible).
    PERFORM pg_current_xact_id();
    INSERT INTO public.pending_changes (records, record_hashes, events, messages)
    SELECT '{}', '{}',
           array_agg(ROW(p_type, p_id, NULL, n.id, p_name, p_kind, p_labels, NULL, NULL, NULL, NULL)
               ::public.pending_event_row::public.pending_event),
           array_agg(''::bytea)
    FROM unnest(p_namespace_ids) AS n(id);
END
$$;

COMMENT ON FUNCTION put_row_event IS 'Puts an event without a message for a changed row.';
REVOKE EXECUTE ON FUNCTION put_row_event FROM PUBLIC;
