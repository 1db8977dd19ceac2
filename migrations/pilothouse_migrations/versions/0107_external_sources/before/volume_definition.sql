-- The part of a volume that containers need to mount it. A plain expression, which the planner puts into the query.
CREATE OR REPLACE FUNCTION volume_definition(p_volume volumes)
    RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'name', p_volume.name, 'type', p_volume.type, 'kubernetes_name', p_volume.kubernetes_name,
        'source_name', p_volume.source_name, 'host_path', p_volume.host_path, 'size', p_volume.size,
        'access_mode', p_volume.access_mode, 'medium', p_volume.spec ->> 'medium',
        'optional', p_volume.spec -> 'optional'));

COMMENT ON FUNCTION volume_definition IS 'A volume as the containers that mount it have it.';
GRANT EXECUTE ON FUNCTION volume_definition TO pilothouse_app, pilothouse_system;
