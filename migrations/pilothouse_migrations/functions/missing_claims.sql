-- Bytes of those claims of a StatefulSet that have no row yet. p_claims has its templates, each with the prefix of the
-- names of its claims and their size in bytes, and the first and the last ordinal. A claim of the cluster has one row at
-- most, by its name there.
CREATE OR REPLACE FUNCTION missing_claims(p_namespace_id bigint, p_claims jsonb)
    RETURNS numeric
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(sum(k.bytes), 0)
    FROM jsonb_to_recordset(p_claims -> 'templates') AS k(prefix text, bytes numeric),
         generate_series((p_claims ->> 'first')::bigint, (p_claims ->> 'last')::bigint) AS o
    WHERE NOT EXISTS (
        SELECT FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.kubernetes_name = k.prefix || o::text)
$$;

COMMENT ON FUNCTION missing_claims IS 'Bytes of the claims of a StatefulSet that have no row yet.';
GRANT EXECUTE ON FUNCTION missing_claims TO pilothouse_app, pilothouse_system;
