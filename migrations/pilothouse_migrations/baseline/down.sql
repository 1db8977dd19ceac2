-- Everything but the functions, which v0101_baseline drops by name. CASCADE: tables refer to one another, their
-- policies and triggers call functions, and functions have arguments of their types.

DROP MATERIALIZED VIEW container_summary;
DROP VIEW watched_rows, container_details, database_stats, table_sizes, user_operation_stats;
DROP TABLE
    container_usage_days, container_usage_daily, container_usage_hourly, container_resource_usage, audit_sinks,
    audit_seals, audit_tiles, audit_tree, operation_logs, rendered_messages, pending_incidents, pending_changes,
    events, stream_head, periodic_jobs, leases, reconcile_work, container_status_history, request_claims,
    idempotency_keys, operations, secrets, config_maps, encryption_keys, mount_changes, container_volumes, volumes,
    environment_variables, port_mappings, container_pods, containers, container_images, api_keys, device_logins,
    oidc_sessions, oidc_logins, federated_identities, recovery_codes, login_challenges, login_origins,
    login_throttles, sessions, quota_counters, namespaces, orphans, clusters, user_secrets, user_roles, roles,
    users
    CASCADE;
DROP DOMAIN pending_record, pending_event, pending_hash;
DROP TYPE pending_record_row, pending_event_row;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
