-- A server remembers the mark of a record: other bytes at the same sequence are another log.
CREATE OR REPLACE FUNCTION record_mark(p_sequence bigint)
    RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT substring(CASE WHEN h.audit_sequence = p_sequence THEN h.audit_chain_hash
    ELSE (SELECT l.chain_hash FROM public.operation_logs AS l WHERE l.sequence = p_sequence) END FROM 1 FOR 8)
FROM public.stream_head AS h WHERE h.id = 1
$$;

COMMENT ON FUNCTION record_mark IS 'Eight bytes that only this record has; null where it is not kept.';
GRANT EXECUTE ON FUNCTION record_mark TO pilothouse_app, pilothouse_system;
