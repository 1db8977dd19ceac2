-- The one event that most changes have takes this way, by key; keep_rendered_messages explains the mechanism.
CREATE OR REPLACE FUNCTION keep_rendered_message(p_event jsonb, p_message bytea)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
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
    IF v_type = 'config_map' THEN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
        FROM public.config_maps AS r
        WHERE r.id = v_id AND r.namespace_id = v_namespace_id AND r.row_version = v_row_version
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    ELSIF v_type = 'container' THEN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
        FROM public.containers AS r
        WHERE r.id = v_id AND r.namespace_id = v_namespace_id AND r.row_version = v_row_version
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    ELSIF v_type = 'namespace' THEN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
        FROM public.namespaces AS r
        WHERE r.id = v_id AND r.id = v_namespace_id AND r.row_version = v_row_version
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    ELSIF v_type = 'secret' THEN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
        FROM public.secrets AS r
        WHERE r.id = v_id AND r.namespace_id = v_namespace_id AND r.row_version = v_row_version
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    ELSIF v_type = 'volume' THEN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
        FROM public.volumes AS r
        WHERE r.id = v_id AND r.namespace_id = v_namespace_id AND r.row_version = v_row_version
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    END IF;
END
$$;

COMMENT ON FUNCTION keep_rendered_message IS 'As keep_rendered_messages, of one event that is no deletion.';
