-- A server and a resume token remember the mark of a record: another mark at the same sequence is another log.
CREATE OR REPLACE FUNCTION record_mark(p_sequence bigint)
    RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE WHEN h.audit_sequence = p_sequence THEN h.record_mark
    ELSE (SELECT l.mark FROM public.operation_logs AS l WHERE l.sequence = p_sequence) END
FROM public.stream_head AS h WHERE h.id = 1
$$;

COMMENT ON FUNCTION record_mark IS 'The random bytes of a record of the audit log; null where the record is not kept.';
GRANT EXECUTE ON FUNCTION record_mark TO pilothouse_app, pilothouse_system;
