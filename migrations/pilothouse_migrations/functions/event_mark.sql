-- A resume token carries the mark of its event: another mark at the same revision is another history.
CREATE OR REPLACE FUNCTION event_mark(p_revision bigint)
    RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE WHEN h.revision = p_revision THEN h.event_mark
    ELSE (SELECT e.mark FROM public.events AS e
          WHERE e.revision = p_revision) END
FROM public.stream_head AS h WHERE h.id = 1
$$;

COMMENT ON FUNCTION event_mark IS
    'The random bytes of an event; null where the event is not kept.';
GRANT EXECUTE ON FUNCTION event_mark TO pilothouse_app, pilothouse_system;
