-- Has the default of clusters.orphans_decided_in: a new cluster begins as decided.
CREATE OR REPLACE FUNCTION current_history()
    RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT history_id FROM public.stream_head WHERE id = 1
$$;

COMMENT ON FUNCTION current_history IS 'The name of the present history of events.';
GRANT EXECUTE ON FUNCTION current_history TO pilothouse_app, pilothouse_system;
