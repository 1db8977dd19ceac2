-- The file of a trigger's function explains it.

CREATE TRIGGER forget_rendered_messages
    AFTER DELETE ON config_maps REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_rendered_messages('config_map');
CREATE TRIGGER raise_row_version BEFORE UPDATE ON config_maps FOR EACH ROW EXECUTE FUNCTION raise_row_version();
CREATE TRIGGER mark_usage_days_deleted
    AFTER DELETE ON container_usage_hourly REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER mark_usage_days_inserted
    AFTER INSERT ON container_usage_hourly REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER mark_usage_days_updated
    AFTER UPDATE ON container_usage_hourly REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER count_container_delete
    AFTER DELETE ON containers REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION count_container_delete();
CREATE TRIGGER count_container_insert
    AFTER INSERT ON containers
    FOR EACH ROW
    WHEN (new.deletion_requested_at IS NULL)
    EXECUTE FUNCTION count_container_insert();
CREATE TRIGGER count_container_update
    AFTER UPDATE OF namespace_id, quota_cpu_millicores, quota_memory_bytes, deletion_requested_at ON containers
    FOR EACH ROW
    WHEN (old.namespace_id IS DISTINCT FROM new.namespace_id
        OR old.quota_cpu_millicores IS DISTINCT FROM new.quota_cpu_millicores
        OR old.quota_memory_bytes IS DISTINCT FROM new.quota_memory_bytes
        OR (old.deletion_requested_at IS NULL) IS DISTINCT FROM (new.deletion_requested_at IS NULL))
    EXECUTE FUNCTION count_container_update();
CREATE TRIGGER forget_rendered_messages
    AFTER DELETE ON containers REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_rendered_messages('container');
CREATE TRIGGER raise_row_version
    BEFORE UPDATE ON containers
    FOR EACH ROW
    WHEN (old.image_id = new.image_id
        OR old.updated_at IS DISTINCT FROM new.updated_at)
    EXECUTE FUNCTION raise_row_version();
CREATE TRIGGER forget_rendered_messages
    AFTER DELETE ON namespaces REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_rendered_messages('namespace');
CREATE TRIGGER keep_quota_counter
    AFTER INSERT OR DELETE ON namespaces
    FOR EACH ROW
    EXECUTE FUNCTION keep_quota_counter();
CREATE TRIGGER raise_row_version BEFORE UPDATE ON namespaces FOR EACH ROW EXECUTE FUNCTION raise_row_version();
CREATE TRIGGER forget_rendered_messages
    AFTER DELETE ON secrets REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_rendered_messages('secret');
CREATE TRIGGER raise_row_version BEFORE UPDATE ON secrets FOR EACH ROW EXECUTE FUNCTION raise_row_version();
CREATE TRIGGER note_given_up_grant
    AFTER DELETE ON user_roles
    FOR EACH ROW
    WHEN (old.namespace_id IS NOT NULL AND old.user_id = app_user_id())
    EXECUTE FUNCTION note_given_up_grant();
CREATE TRIGGER forget_rendered_messages
    AFTER DELETE ON volumes REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_rendered_messages('volume');
CREATE TRIGGER raise_row_version BEFORE UPDATE ON volumes FOR EACH ROW EXECUTE FUNCTION raise_row_version();
