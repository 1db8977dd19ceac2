-- The storage of a namespace that its quota counts: the sizes of its claims, those being deleted included, and of the
-- claims that templates of StatefulSets make, whose rows follow later (claim_changes). The server that writes a row
-- removes the note in the same transaction, so each claim counts once.
CREATE OR REPLACE FUNCTION count_storage(p_namespace_id bigint)
    RETURNS numeric
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT coalesce(sum(public.quantity_bytes(v.size)), 0) FROM public.volumes AS v
            WHERE v.namespace_id = p_namespace_id AND v.type = 'persistent_volume_claim')
        + (SELECT coalesce(sum(n.storage_bytes), 0) FROM public.claim_changes AS n
           WHERE n.namespace_id = p_namespace_id)
$$;

COMMENT ON FUNCTION count_storage IS 'How many bytes of storage count against the quota of a namespace.';
GRANT EXECUTE ON FUNCTION count_storage TO pilothouse_app, pilothouse_system;
