-- Asked for when a container gets claims from templates that it did not have. `used` leaves out its own note, which the
-- change replaces. No other create pays for it.
CREATE OR REPLACE FUNCTION storage_limits(
    p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb,
    OUT most text, OUT used numeric, OUT asked numeric, OUT taken text)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.id, n.resource_quota ->> 'storage' INTO found_id, most
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    -- The row of a claim would have the name of a volume that is no such claim.
    SELECT v.name INTO taken
    FROM jsonb_to_recordset(p_claims -> 'templates') AS k(prefix text),
         generate_series((p_claims ->> 'first')::bigint, (p_claims ->> 'last')::bigint) AS o
         JOIN public.volumes AS v ON v.namespace_id = found_id AND v.kubernetes_name IS DISTINCT FROM v.name
    WHERE v.name = k.prefix || o::text LIMIT 1;
    IF most IS NOT NULL THEN
        used := public.count_storage(found_id) - (SELECT coalesce(sum(c.storage_bytes), 0)
            FROM public.claim_changes AS c WHERE c.container_id = p_container_id);
        asked := public.missing_claims(found_id, p_claims);
    END IF;
END
$$;

COMMENT ON FUNCTION storage_limits IS
    'The quota of storage of a namespace, as the caller sees it, and what claims of a container ask of it; null: no limit.';
GRANT EXECUTE ON FUNCTION storage_limits TO pilothouse_app, pilothouse_system;
