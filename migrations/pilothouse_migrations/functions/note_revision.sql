-- The row that the trigger is about is locked, so no other revision of it gets the same number. A change of other fields,
-- and an equal state, make no revision. Values of a secret are told apart by the digest of their ciphertext, which a
-- rotation of keys leaves as it is. Each relation has its own compiled copy, so branches of others are never planned.
-- Triggers of 0123 give the fields as a second argument, which is not read any more.
CREATE OR REPLACE FUNCTION note_revision()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    fields jsonb;
    desired jsonb;
    added jsonb;
BEGIN
    r := new;
    LOOP
        CASE TG_ARGV[0]
        WHEN 'service' THEN
            fields := jsonb_build_object('type', r.type, 'spec', r.spec - 'rights', 'labels', r.labels,
                'annotations', r.annotations, 'drift_policy', r.drift_policy);
        WHEN 'object' THEN
            fields := jsonb_build_object('api_version', r.api_version, 'document', r.document,
                'drift_policy', r.drift_policy, 'protected', r.protected);
        WHEN 'volume' THEN
            fields := jsonb_build_object('type', r.type, 'storage_class', r.storage_class, 'size', r.size,
                'access_mode', r.access_mode, 'mount_path', r.mount_path, 'host_path', r.host_path,
                'source_name', r.source_name, 'spec', r.spec - 'ends_with_claim', 'labels', r.labels,
                'annotations', r.annotations);
        WHEN 'config_map' THEN
            fields := jsonb_build_object('data', r.data, 'binary_data', r.binary_data, 'immutable', r.immutable,
                'labels', r.labels, 'annotations', r.annotations);
        WHEN 'secret' THEN
            fields := jsonb_build_object('type', r.type, 'sizes', r.data, 'immutable', r.immutable,
                'labels', r.labels, 'annotations', r.annotations,
                'ciphertext_digest', encode(sha256(r.ciphertext), 'hex'));
        END CASE;
        EXIT WHEN desired IS NOT NULL;
        desired := fields;
        EXIT WHEN TG_OP = 'INSERT';
        r := old;
    END LOOP;
    added := jsonb_build_object(
        'document', desired, 'operation_id', nullif(current_setting('app.operation_id', true), ''), 'kept', 20);
    IF TG_OP = 'UPDATE' THEN
        IF desired = fields THEN
            RETURN NULL;
        END IF;
        added := added || jsonb_build_object('before', fields, 'before_at', old.updated_at);
    END IF;
    PERFORM public.write_revision(TG_ARGV[0], new.id, new.namespace_id, added);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION note_revision IS 'Adds a revision of a row whose fields that callers set have changed.';
