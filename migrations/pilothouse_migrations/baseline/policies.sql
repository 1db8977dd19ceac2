-- Row-level security, in one shape: the owner is bound too (FORCE), the system role sees all, the app role sees what
-- the caller reaches. The sub-selects make the planner evaluate the helper functions once for a statement, not for a
-- row.

ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY users_insert_policy ON users FOR INSERT TO pilothouse_app
    WITH CHECK ((SELECT app_sees_all())
        OR kind = 'service_account' AND namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY users_system_policy ON users TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY users_update_policy ON users FOR UPDATE TO pilothouse_app
    USING (id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR kind = 'service_account' AND namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY users_visible_policy ON users FOR SELECT TO pilothouse_app
    USING (id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR id = ANY ((SELECT app_peer_ids())::bigint[])
        OR kind = 'service_account' AND namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));

ALTER TABLE roles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY roles_delete_policy ON roles FOR DELETE TO pilothouse_app USING ((SELECT app_sees_all()));
CREATE POLICY roles_insert_policy ON roles FOR INSERT TO pilothouse_app WITH CHECK ((SELECT app_sees_all()));
CREATE POLICY roles_system_policy ON roles TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY roles_update_policy ON roles FOR UPDATE TO pilothouse_app USING ((SELECT app_sees_all()));
CREATE POLICY roles_visible_policy ON roles FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE user_roles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY user_roles_delete_policy ON user_roles FOR DELETE TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY user_roles_insert_policy ON user_roles FOR INSERT TO pilothouse_app
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY user_roles_system_policy ON user_roles TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY user_roles_update_policy ON user_roles FOR UPDATE TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY user_roles_visible_policy ON user_roles FOR SELECT TO pilothouse_app
    USING (user_id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));

ALTER TABLE user_secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY user_secrets_access_policy ON user_secrets TO pilothouse_app
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()))
    WITH CHECK (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()));
CREATE POLICY user_secrets_system_policy ON user_secrets TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE clusters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY clusters_delete_policy ON clusters FOR DELETE TO pilothouse_app USING ((SELECT app_sees_all()));
CREATE POLICY clusters_insert_policy ON clusters FOR INSERT TO pilothouse_app WITH CHECK ((SELECT app_sees_all()));
CREATE POLICY clusters_system_policy ON clusters TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY clusters_update_policy ON clusters FOR UPDATE TO pilothouse_app USING ((SELECT app_sees_all()));
CREATE POLICY clusters_visible_policy ON clusters FOR SELECT TO pilothouse_app
    USING ((SELECT app_sees_all()) OR EXISTS (SELECT FROM namespaces AS n WHERE n.cluster_name = clusters.name));

ALTER TABLE orphans ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY orphans_access_policy ON orphans TO pilothouse_app
    USING ((SELECT app_sees_all()))
    WITH CHECK ((SELECT app_sees_all()));
CREATE POLICY orphans_system_policy ON orphans TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE namespaces ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY namespaces_insert_policy ON namespaces FOR INSERT TO pilothouse_app WITH CHECK ((SELECT app_sees_all()));
CREATE POLICY namespaces_system_policy ON namespaces TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY namespaces_update_policy ON namespaces FOR UPDATE TO pilothouse_app
    USING ((SELECT app_sees_all()) OR id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY namespaces_visible_policy ON namespaces FOR SELECT TO pilothouse_app
    USING ((SELECT app_sees_all()) OR id = ANY ((SELECT app_namespace_ids())::bigint[]));

ALTER TABLE quota_counters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY quota_counters_access_policy ON quota_counters FOR SELECT TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY quota_counters_system_policy ON quota_counters TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY sessions_access_policy ON sessions TO pilothouse_app
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()))
    WITH CHECK (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()));
CREATE POLICY sessions_system_policy ON sessions TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE login_throttles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY login_throttles_system_policy ON login_throttles TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE login_origins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY login_origins_system_policy ON login_origins TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE login_challenges ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY login_challenges_system_policy ON login_challenges TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE recovery_codes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY recovery_codes_system_policy ON recovery_codes TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE federated_identities ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY federated_identities_system_policy ON federated_identities TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE oidc_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY oidc_logins_system_policy ON oidc_logins TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE oidc_sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY oidc_sessions_system_policy ON oidc_sessions TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE device_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY device_logins_system_policy ON device_logins TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY api_keys_access_policy ON api_keys TO pilothouse_app
    USING (user_id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR account_namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK (user_id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR account_namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY api_keys_system_policy ON api_keys TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE container_images ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_images_delete_policy ON container_images FOR DELETE TO pilothouse_app
    USING ((SELECT app_sees_all()));
CREATE POLICY container_images_system_policy ON container_images TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY container_images_update_policy ON container_images FOR UPDATE TO pilothouse_app
    USING ((SELECT app_sees_all()));
CREATE POLICY container_images_visible_policy ON container_images FOR SELECT TO pilothouse_app
    USING ((SELECT app_sees_all()) OR EXISTS (SELECT FROM containers AS c WHERE c.image_id = container_images.id));

ALTER TABLE containers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_access_policy ON containers TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY containers_system_policy ON containers TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE container_pods ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_pods_access_policy ON container_pods TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_pods_system_policy ON container_pods TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE port_mappings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY port_mappings_access_policy ON port_mappings TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY port_mappings_system_policy ON port_mappings TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE environment_variables ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY environment_variables_access_policy ON environment_variables TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY environment_variables_system_policy ON environment_variables TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE volumes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY volumes_access_policy ON volumes TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY volumes_system_policy ON volumes TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE container_volumes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_volumes_access_policy ON container_volumes TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_volumes_system_policy ON container_volumes TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE mount_changes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mount_changes_access_policy ON mount_changes TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY mount_changes_system_policy ON mount_changes TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE encryption_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY encryption_keys_system_policy ON encryption_keys TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY encryption_keys_visible_policy ON encryption_keys FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE config_maps ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY config_maps_access_policy ON config_maps TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY config_maps_system_policy ON config_maps TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY secrets_access_policy ON secrets TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY secrets_system_policy ON secrets TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE operations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY operations_access_policy ON operations TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY operations_own_policy ON operations TO pilothouse_app
    USING (user_id = (SELECT app_user_id()))
    WITH CHECK (user_id = (SELECT app_user_id()));
CREATE POLICY operations_system_policy ON operations TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY idempotency_keys_access_policy ON idempotency_keys TO pilothouse_app
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()))
    WITH CHECK (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()));
CREATE POLICY idempotency_keys_system_policy ON idempotency_keys TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE request_claims ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY request_claims_access_policy ON request_claims TO pilothouse_app
    USING (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()))
    WITH CHECK (user_id = (SELECT app_user_id()) OR (SELECT app_sees_all()));
CREATE POLICY request_claims_system_policy ON request_claims TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE container_status_history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_status_history_access_policy ON container_status_history TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_status_history_system_policy ON container_status_history TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE reconcile_work ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY reconcile_work_access_policy ON reconcile_work TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY reconcile_work_system_policy ON reconcile_work TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE leases ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY leases_system_policy ON leases TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE periodic_jobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY periodic_jobs_system_policy ON periodic_jobs TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE stream_head ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY stream_head_system_policy ON stream_head TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY stream_head_visible_policy ON stream_head FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY events_access_policy ON events TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY events_system_policy ON events TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE pending_changes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY pending_changes_system_policy ON pending_changes TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE pending_incidents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY pending_incidents_system_policy ON pending_incidents TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE rendered_messages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY rendered_messages_access_policy ON rendered_messages TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY rendered_messages_system_policy ON rendered_messages TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE operation_logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY operation_log_policy ON operation_logs FOR SELECT TO pilothouse_app
    USING (user_id = (SELECT app_user_id())
        OR (SELECT app_sees_all())
        OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY operation_logs_system_policy ON operation_logs TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE audit_tree ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_tree_system_policy ON audit_tree TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY audit_tree_visible_policy ON audit_tree FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE audit_tiles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_tiles_system_policy ON audit_tiles TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY audit_tiles_visible_policy ON audit_tiles FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE audit_seals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_seals_system_policy ON audit_seals TO pilothouse_system USING (true) WITH CHECK (true);
CREATE POLICY audit_seals_visible_policy ON audit_seals FOR SELECT TO pilothouse_app USING (true);

ALTER TABLE audit_sinks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_sinks_access_policy ON audit_sinks TO pilothouse_app
    USING ((SELECT app_sees_all()))
    WITH CHECK ((SELECT app_sees_all()));
CREATE POLICY audit_sinks_system_policy ON audit_sinks TO pilothouse_system USING (true) WITH CHECK (true);

ALTER TABLE container_resource_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_resource_usage_access_policy ON container_resource_usage TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_resource_usage_system_policy ON container_resource_usage TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE container_usage_hourly ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_usage_hourly_access_policy ON container_usage_hourly TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_usage_hourly_system_policy ON container_usage_hourly TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE container_usage_daily ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_usage_daily_access_policy ON container_usage_daily TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_usage_daily_system_policy ON container_usage_daily TO pilothouse_system
    USING (true) WITH CHECK (true);

ALTER TABLE container_usage_days ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY container_usage_days_access_policy ON container_usage_days TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY container_usage_days_system_policy ON container_usage_days TO pilothouse_system
    USING (true) WITH CHECK (true);
