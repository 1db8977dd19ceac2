-- The one event that most changes have takes this way, by key; keep_rendered_messages explains the mechanism. Of
-- watched_rows PostgreSQL reads the one branch whose resource type is asked for: with a generic plan the others end at
-- a comparison of two constants. A plan for each call would cost more than the call.
CREATE OR REPLACE FUNCTION keep_rendered_message(p_event jsonb, p_message bytea)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_type text := p_event ->> 'resource_type';
    v_id bigint := p_event ->> 'resource_id';
    v_namespace_id bigint := p_event ->> 'namespace_id';
    v_row_version bigint := p_event ->> 'row_version';
    v_format integer := p_event ->> 'format';
    v_message bytea := substring(p_message FROM (p_event ->> 'kept_at')::integer + 1
        FOR (p_event ->> 'kept_bytes')::integer);
BEGIN
    INSERT INTO public.rendered_messages AS m
        (resource_type, resource_id, namespace_id, row_version, format, message)
    SELECT r.resource_type, r.resource_id, r.namespace_id, r.row_version, v_format, v_message
    FROM public.watched_rows AS r
    WHERE r.resource_type = v_type AND r.resource_id = v_id AND r.namespace_id = v_namespace_id
      AND r.row_version = v_row_version
    ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
    SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
        message = EXCLUDED.message
    WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
END
$$;

COMMENT ON FUNCTION keep_rendered_message IS 'As keep_rendered_messages, of one event that is no deletion.';
