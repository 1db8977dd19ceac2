-- Ends leases on work; a lost lease is left alone. p_objects: the applied objects; null leaves the stored ones.
--
-- Work that was requested during the lease is due before the lease ends, and stays due. After the lease has run out the
-- row is due anyway, and a request leaves no trace, so the work is due one more time.
CREATE OR REPLACE FUNCTION release_work(
    p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[],
    p_attempts integer[], p_errors text[], p_objects text[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    UPDATE public.reconcile_work AS w
    SET due_at = least(CASE WHEN w.due_at < w.leased_until OR w.leased_until <= clock_timestamp()
                            THEN w.due_at END,
                       clock_timestamp() + make_interval(secs => d.seconds)),
        lease_owner = NULL, leased_until = NULL, last_error = d.error, updated_at = clock_timestamp(),
        attempts = CASE WHEN w.due_at < w.leased_until THEN 0 ELSE d.attempts END,
        applied_objects = coalesce(d.objects::jsonb, w.applied_objects)
    FROM unnest(p_types, p_ids, p_epochs, p_owners, p_seconds, p_attempts, p_errors, p_objects)
        AS d(type, id, epoch, owner, seconds, attempts, error, objects)
    WHERE w.resource_type = d.type AND w.resource_id = d.id AND w.lease_epoch = d.epoch
      AND w.lease_owner = d.owner;
END
$$;

COMMENT ON FUNCTION release_work IS 'Ends leases on work; the rows are due again after so many seconds.';
GRANT EXECUTE ON FUNCTION release_work TO pilothouse_system;
