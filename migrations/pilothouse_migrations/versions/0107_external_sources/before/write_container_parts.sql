-- The rows of a container's environment, ports and mounts, of which there are none yet; null: it has none.
CREATE OR REPLACE FUNCTION write_container_parts(
    p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_env IS NOT NULL THEN
        INSERT INTO public.environment_variables
            (container_id, namespace_id, position, name, value, value_from, source_name, source_key, optional)
        SELECT p_container_id, p_namespace_id, e.position, e.name, e.value, e.value_from, e.source_name, e.source_key,
               e.optional
        FROM jsonb_to_recordset(p_env) AS e(
            position int, name text, value text, value_from text, source_name text, source_key text,
            optional boolean);
    END IF;
    IF p_ports IS NOT NULL THEN
        INSERT INTO public.port_mappings (container_id, namespace_id, name, container_port, host_port, protocol,
            app_protocol, service_type, service_name, service_port, node_port)
        SELECT p_container_id, p_namespace_id, r.name, r.container_port, r.host_port, r.protocol, r.app_protocol,
               r.service_type, r.service_name, r.service_port, r.node_port
        FROM ROWS FROM (jsonb_to_recordset(p_ports) AS (
            name text, container_port int, host_port int, protocol text, app_protocol text, service_type text,
            service_name text, service_port int, node_port int)) WITH ORDINALITY AS r
        ORDER BY r.ordinality;
    END IF;
    IF p_mounts IS NOT NULL THEN
        -- A container and its init container may mount the same volume in the same place: one row stands for both.
        INSERT INTO public.container_volumes (container_id, volume_id, namespace_id, mount_path, read_only, sub_path)
        SELECT p_container_id, v.id, p_namespace_id, m.mount_path, m.read_only, m.sub_path
        FROM jsonb_to_recordset(p_mounts) AS m(volume text, mount_path text, read_only boolean, sub_path text)
        JOIN public.volumes AS v ON v.namespace_id = p_namespace_id AND v.name = m.volume
        ON CONFLICT ON CONSTRAINT uq_container_volumes_mount DO NOTHING;
    END IF;
END
$$;

COMMENT ON FUNCTION write_container_parts IS 'Writes the rows of a container that belong to its own.';
GRANT EXECUTE ON FUNCTION write_container_parts TO pilothouse_app, pilothouse_system;
