-- The usage of a namespace is the sum over its rows of quota_counters. A counter that every create updated would be
-- locked until the commit is flushed, and could deadlock with a deletion that holds its container. So each statement
-- on containers inserts a row with the difference that it makes, and waits for nothing. On average every 32nd
-- statement, chosen at random, folds the differences into the row with id 0. It passes by if another transaction folds
-- already; the rows it takes are deleted by no one else. The sum is the same before and after in every snapshot.
CREATE OR REPLACE FUNCTION fold_quota_changes(p_namespace_id bigint)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM public.quota_counters WHERE namespace_id = p_namespace_id AND id = 0 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A statement of its own, so that it sees what was committed before it got the lock.
    WITH taken AS (
        DELETE FROM public.quota_counters WHERE namespace_id = p_namespace_id AND id > 0
        RETURNING containers, cpu_millicores, memory_bytes),
    added AS (
        SELECT sum(containers) AS containers, sum(cpu_millicores) AS cpu, sum(memory_bytes) AS memory FROM taken)
    UPDATE public.quota_counters AS q
    SET containers = q.containers + a.containers, cpu_millicores = q.cpu_millicores + a.cpu,
        memory_bytes = q.memory_bytes + a.memory
    FROM added AS a
    WHERE q.namespace_id = p_namespace_id AND q.id = 0 AND a.containers IS NOT NULL;
    RETURN true;
END
$$;

COMMENT ON FUNCTION fold_quota_changes IS
    'Adds a namespace''s differences to its counter; false, and nothing done, if another transaction does so.';
