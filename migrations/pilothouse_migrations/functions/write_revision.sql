-- Adds a revision of a resource whose row the transaction has written, and so locked: no other one gets its number.
-- p_revision: its document, origin and operation, how many are kept, and the state before where that may have no
-- revision yet; its number, where the row has that of the newest. Older ones go by their number, and beyond 4 MiB in
-- all, with the values of secrets; the newest always stays.
CREATE OR REPLACE FUNCTION write_revision(
    p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest integer := (p_revision ->> 'number')::integer;
    last integer;
    bytes bigint;
    most_bytes CONSTANT bigint := 4 * 1024 * 1024;
BEGIN
    IF newest IS NULL THEN
        SELECT max(r.number) INTO last FROM public.revisions AS r WHERE r.resource_type = p_type AND r.resource_id = p_id;
        IF last IS NULL AND p_revision ? 'before' THEN
            newest := 2;
        ELSE
            newest := coalesce(last, 0) + 1;
            p_revision := p_revision - 'before';
        END IF;
    END IF;
    IF p_revision ? 'before' THEN
        INSERT INTO public.revisions (resource_type, resource_id, namespace_id, number, document, created_at)
        VALUES (p_type, p_id, p_namespace_id, newest - 1, p_revision -> 'before',
            (p_revision ->> 'before_at')::timestamptz);
    END IF;
    INSERT INTO public.revisions
        (resource_type, resource_id, namespace_id, number, document, origin, operation_id, created_by)
    VALUES (p_type, p_id, p_namespace_id, newest, p_revision -> 'document', (p_revision ->> 'origin')::integer,
        (p_revision ->> 'operation_id')::uuid, public.app_user_id());
    IF newest = 1 THEN
        RETURN;
    END IF;
    DELETE FROM public.revisions AS r
    WHERE r.resource_type = p_type AND r.resource_id = p_id AND r.number <= newest - (p_revision ->> 'kept')::integer;
    -- Few have large documents: what each has is summed up only where all together are too large.
    SELECT sum(pg_column_size(r.document)) INTO bytes
    FROM public.revisions AS r WHERE r.resource_type = p_type AND r.resource_id = p_id;
    IF p_type IN ('secret', 'application') THEN
        SELECT bytes + coalesce(sum(length(v.ciphertext)), 0) INTO bytes
        FROM public.revisions AS r JOIN public.revision_values AS v ON v.revision_id = r.id
        WHERE r.resource_type = p_type AND r.resource_id = p_id;
    END IF;
    IF bytes > most_bytes THEN
        DELETE FROM public.revisions AS r
        USING (
            SELECT k.id, k.number, sum(pg_column_size(k.document) + v.bytes) OVER (ORDER BY k.number DESC) AS bytes
            FROM public.revisions AS k
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(length(w.ciphertext)), 0) AS bytes
                FROM public.revision_values AS w WHERE w.revision_id = k.id) AS v
            WHERE k.resource_type = p_type AND k.resource_id = p_id) AS o
        WHERE r.id = o.id AND o.number < newest AND o.bytes > most_bytes;
    END IF;
END
$$;

COMMENT ON FUNCTION write_revision IS 'Adds the newest revision of a resource, and deletes those beyond its limits.';
GRANT EXECUTE ON FUNCTION write_revision TO pilothouse_app, pilothouse_system;
