-- Moves stream_head.pending_floor; number_visible has the argument why that is safe.
CREATE OR REPLACE FUNCTION raise_floor(p_took_all boolean, p_oldest_running xid8)
    RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
UPDATE public.stream_head
SET pending_floor = CASE WHEN passed THEN floor_candidate ELSE pending_floor END,
    floor_candidate = CASE WHEN passed OR floor_candidate = 0
        THEN (SELECT last_value FROM public.pending_changes_id_seq) ELSE floor_candidate END,
    floor_transaction = CASE WHEN passed OR floor_candidate = 0 THEN NULL
        ELSE coalesce(floor_transaction, pg_current_xact_id()) END
FROM (SELECT p_took_all
          AND coalesce(p_oldest_running >= h.floor_transaction, false) AS passed
      FROM public.stream_head AS h WHERE h.id = 1) AS state
WHERE id = 1
$$;

COMMENT ON FUNCTION raise_floor IS 'Moves the floor below which no search for pending rows goes.';
