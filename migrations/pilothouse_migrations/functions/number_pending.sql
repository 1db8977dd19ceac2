-- Numbers pending rows in the order of their ids, and within a row in the order of its records and events. It appends
-- records to the audit log and events to the feed. Its caller holds the lock of stream_head, so numbers have no gaps:
-- a rollback takes the new head back together with the rows.
--
-- Each record and each event gets eight random bytes, its mark. A copy of the database that went another way has other
-- bytes at the same number, which shows that it is another one. The head has the marks of the newest ones, also once
-- their partitions are dropped.
--
-- All statements go by keys. With plans of its own per pass PostgreSQL planned the partitions of events each time
-- again, which cost more than reading them; hence the generic plans and no sequential scans.
--
-- Events and their messages are two arrays that are unnested together: PostgreSQL finds an element of an array of texts
-- by going over those before it, so the square of their number was read for a row of five hundred.
CREATE OR REPLACE FUNCTION number_pending(p_ids bigint[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    head public.stream_head;
    hashes bytea[];
    event_count bigint;
    newest_record_mark bytea;
    newest_event_mark bytea;
BEGIN
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
    SELECT coalesce(array_agg(h.hash ORDER BY p.id, h.position), '{}'), count(DISTINCT p.id) INTO hashes
    FROM public.pending_changes AS p, unnest(p.record_hashes) WITH ORDINALITY AS h(hash, position)
    WHERE p.id = ANY (p_ids);
    IF cardinality(hashes) > 0 THEN
        newest_record_mark := substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8);
    END IF;
    INSERT INTO public.operation_logs
        (operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
         request_method, request_path, request_body, request_headers, client_ip, user_agent,
         status_code, response_body, duration_ms, error_code, error_message, started_at, completed_at,
         metadata, stream_id, sequence, record_hash, mark)
    SELECT coalesce(n.operation_id, gen_random_uuid()), n.user_id, n.username, n.action, n.resource_type,
           n.resource_id, n.resource_name, n.namespace_id, n.request_method, n.request_path, n.request_body,
           n.request_headers, n.client_ip, n.user_agent, n.status_code, n.response_body, n.duration_ms,
           n.error_code, n.error_message, coalesce(n.started_at, n.created_at), n.completed_at,
           coalesce(n.metadata, '{}'), n.stream_id, head.audit_sequence + n.number, hashes[n.number],
           CASE WHEN n.number = cardinality(hashes) THEN newest_record_mark
               ELSE substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8) END
    FROM (SELECT row_number() OVER (ORDER BY p.id, r.position) AS number, p.created_at, r.*
          FROM public.pending_changes AS p, unnest(p.records) WITH ORDINALITY AS
              r(operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
                request_method, request_path, request_body, request_headers, client_ip, user_agent,
                status_code, response_body, duration_ms, error_code, error_message, started_at,
                completed_at, metadata, stream_id, position)
          WHERE p.id = ANY (p_ids)) AS n;
    INSERT INTO public.events
        (revision, resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, message, labels,
         status, labels_before, status_before, operation_id, pending_id, mark)
    SELECT head.revision + n.number, n.resource_type, n.resource_id, n.resource_uid, n.namespace_id,
           n.resource_name, n.kind, n.message, coalesce(n.labels, '{}'), n.status, n.labels_before,
           n.status_before, n.operation_id, n.pending_id, substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8)
    FROM (SELECT row_number() OVER (ORDER BY p.id, e.position) AS number, p.id AS pending_id, e.*
          FROM public.pending_changes AS p, unnest(p.events, p.messages) WITH ORDINALITY AS
              e(resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, labels, status,
                labels_before, status_before, operation_id, message, position)
          WHERE p.id = ANY (p_ids)) AS n;
    GET DIAGNOSTICS event_count = ROW_COUNT;
    IF event_count > 0 THEN
        SELECT e.mark INTO newest_event_mark FROM public.events AS e WHERE e.revision = head.revision + event_count;
    END IF;
    UPDATE public.stream_head AS h
    SET revision = head.revision + event_count,
        audit_sequence = head.audit_sequence + cardinality(hashes),
        record_mark = coalesce(newest_record_mark, head.record_mark),
        event_mark = coalesce(newest_event_mark, head.event_mark)
    WHERE h.id = 1;
    DELETE FROM public.pending_changes AS p WHERE p.id = ANY (p_ids);
    -- Ask for new partitions every half partition: two million revisions are a few minutes at full speed.
    IF head.revision / 500000 <> (head.revision + event_count) / 500000 THEN
        PERFORM pg_notify('pilothouse_partitions', '');
    END IF;
END
$$;

COMMENT ON FUNCTION number_pending IS
    'Numbers these pending rows, in the order of their ids, under the lock of the head that the caller holds.';
