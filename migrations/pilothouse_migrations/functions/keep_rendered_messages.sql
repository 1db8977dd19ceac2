-- A read answers with the bytes in rendered_messages instead of rendering the row. Bytes that are not of the row as it
-- is are never shown: they carry the row_version and the format that they were rendered from, and a reader that
-- expects others renders the row itself.
--
-- put_changes runs with its owner's rights, so this looks whether a resource is in the namespace that its event names,
-- which the caller reaches: otherwise a caller could put bytes next to another tenant's row. Of several events of one
-- resource the last one counts. ORDER BY: two transactions that write messages lock them in one order. OFFSET 0 keeps
-- PostgreSQL from answering EXISTS with a hash of the whole table, which it did with some thousand containers.
CREATE OR REPLACE FUNCTION keep_rendered_messages(p_events jsonb, p_messages bytea[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.rendered_messages AS m
        (resource_type, resource_id, namespace_id, row_version, format, message)
    SELECT e.resource_type, e.resource_id, e.namespace_id, e.row_version, e.format,
           substring(p_messages[e.position::integer] FROM e.kept_at + 1 FOR e.kept_bytes)
    FROM (
        SELECT DISTINCT ON (a.resource_type, a.resource_id) a.*
        FROM ROWS FROM (jsonb_to_recordset(p_events) AS (
                 resource_type text, resource_id bigint, namespace_id bigint, kind text, row_version bigint,
                 format integer, kept_at integer, kept_bytes integer)) WITH ORDINALITY
             AS a(resource_type, resource_id, namespace_id, kind, row_version, format, kept_at, kept_bytes,
                 position)
        ORDER BY a.resource_type, a.resource_id, a.position DESC) AS e
    WHERE e.kept_bytes > 0 AND e.kind <> 'deleted' AND EXISTS (
        SELECT FROM public.watched_rows AS r
        WHERE r.resource_type = e.resource_type AND r.resource_id = e.resource_id
          AND r.namespace_id = e.namespace_id AND r.row_version = e.row_version
        OFFSET 0)
    ORDER BY e.resource_type, e.resource_id
    ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
    SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
        message = EXCLUDED.message
    WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    -- The row of a deleted namespace stays, so no trigger deletes its message.
    IF p_events @> '[{"resource_type": "namespace", "kind": "deleted"}]' THEN
        DELETE FROM public.rendered_messages AS m
        USING jsonb_to_recordset(p_events) AS e(
            resource_type text, resource_id bigint, namespace_id bigint, kind text)
        WHERE e.resource_type = 'namespace' AND e.kind = 'deleted' AND m.resource_type = e.resource_type
          AND m.resource_id = e.resource_id AND m.namespace_id = e.namespace_id;
    END IF;
END
$$;

COMMENT ON FUNCTION keep_rendered_messages IS
    'Keeps the parts of messages that are answers to reads beside the rows that they were rendered from.';
