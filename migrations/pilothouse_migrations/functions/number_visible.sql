-- One pass of the sequencer: takes the lock of stream_head, then numbers the pending rows that it sees.
--
-- Why the order is right. put_changes takes the pending id in the last statement of a mutation. A transaction that
-- waited for a row of another one takes its id after that one has committed, so its id is larger. Hence the changes of
-- one object are numbered in the order of their commits, and a writer that saw A committed before it began B gets the
-- larger number for B. After the id is taken the transaction writes nothing more and waits for nothing:
-- pending_changes has no foreign key, no trigger and no deferred constraint. All changes of one transaction are one
-- row.
--
-- The floor (the xmin argument). While an old snapshot exists, every pass visits the dead index entries of all rows
-- that were numbered since. stream_head.pending_floor avoids this: no search goes to ids at or below it. Pass k notes
-- v, the last id that was given out (floor_candidate). Pass k + 1 notes its own transaction id t for that v
-- (floor_transaction). put_changes assigns the transaction id before the pending id, so every transaction that has a
-- pending id <= v has a transaction id < t. One statement reads the pending rows and the snapshot's xmin, the oldest
-- transaction that still runs. If xmin >= t, all those transactions have ended, and the rows of those that committed
-- were visible to that statement. If the pass then took every row that it saw, no id <= v can appear any more, and v
-- becomes the floor. Only a transaction that had no id before it took the lock may note t: an older id would be below
-- the ids of transactions that it does not vouch for.
--
-- Failures. A row that breaks a constraint only now (there is no such user) is tried alone, and again
-- in the next pass. Then set_aside removes it with a record, and the others go on. A missing partition is the fault of
-- no change: everything waits for it.
CREATE OR REPLACE FUNCTION number_visible(
    p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    head public.stream_head;
    waiting text := current_setting('lock_timeout');
    taken bigint[];
    oldest_running xid8;
    one bigint;
    state text;
    broken text;
    relation text;
BEGIN
    -- This waits for the head, however long, and after that for at most a second.
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
    PERFORM set_config('lock_timeout', '1s', true);
    numbered := '{}';
    aside := 0;
    revision_before := head.revision;
    -- A statement of its own: its snapshot is younger than the lock, and xmin is of the same snapshot.
    SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}'), pg_snapshot_xmin(pg_current_snapshot())
    INTO taken, oldest_running
    FROM (SELECT q.id FROM public.pending_changes AS q
          WHERE q.id > head.pending_floor ORDER BY q.id LIMIT p_limit) AS p;
    more := cardinality(taken) = p_limit;
    IF cardinality(taken) > 0 THEN
        BEGIN
            PERFORM public.number_pending(taken);
            numbered := taken;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            -- One by one. A row that fails for the first time holds those behind it until the next pass, so that
            -- no later change of the same object overtakes it.
            FOREACH one IN ARRAY taken LOOP
                BEGIN
                    PERFORM public.number_pending(ARRAY[one]);
                    numbered := numbered || one;
                EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, broken = CONSTRAINT_NAME,
                        relation = TABLE_NAME;
                    IF state = '23514' AND broken = '' AND relation = 'events' THEN
                        RAISE EXCEPTION 'no partition of events holds the next revision'
                            USING ERRCODE = 'configuration_limit_exceeded';
                    END IF;
                    IF (SELECT p.failures FROM public.pending_changes AS p WHERE p.id = one) > 0 THEN
                        PERFORM public.set_aside(one, state, coalesce(nullif(broken, ''), relation));
                        aside := aside + 1;
                    ELSE
                        UPDATE public.pending_changes AS p SET failures = 1 WHERE p.id = one;
                        more := true;
                        EXIT;
                    END IF;
                END;
            END LOOP;
        END;
        PERFORM public.raise_floor(numbered = taken AND NOT more, oldest_running);
        IF (SELECT h.revision > head.revision FROM public.stream_head AS h WHERE h.id = 1) THEN
            PERFORM pg_notify('pilothouse_changes',
                (SELECT h.revision FROM public.stream_head AS h WHERE h.id = 1)::text);
        END IF;
    END IF;
    PERFORM set_config('lock_timeout', waiting, true);
END
$$;

COMMENT ON FUNCTION number_visible IS
    'One pass: takes the lock of the head, then numbers the pending rows that are visible.';
