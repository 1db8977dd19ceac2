-- A view runs with its owner's rights unless told otherwise, and the owner bypasses row-level security; hence
-- security_invoker on each. A materialised view has no row-level security at all: see reachable_container_summary.
CREATE VIEW container_details WITH (security_invoker = true) AS
SELECT
    c.id, c.name, c.display_name, c.status, c.phase, c.reason, c.message, c.kubernetes_name, c.pod_name, c.pod_ip,
    c.host_ip, c.restart_count, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.started_at,
    c.finished_at, c.created_at, c.updated_at,
    n.name AS namespace_name,
    n.kubernetes_name AS namespace_k8s_name,
    ci.name AS image_name,
    ci.tag AS image_tag,
    ci.repository AS image_repository,
    u.username AS created_by_username,
    u.full_name AS created_by_full_name,
    CASE WHEN c.status = 'running' THEN extract(epoch FROM (now() - c.started_at)) END AS uptime_seconds,
    latest.cpu_usage_percent,
    latest.memory_usage_percent,
    latest.timestamp AS last_metric_timestamp,
    c.namespace_id,
    ci.digest AS image_digest
FROM containers AS c
LEFT JOIN namespaces AS n ON n.id = c.namespace_id
LEFT JOIN container_images AS ci ON ci.id = c.image_id
LEFT JOIN users AS u ON u.id = c.created_by
LEFT JOIN LATERAL (
    SELECT r.cpu_usage_percent, r.memory_usage_percent, r.timestamp
    FROM container_resource_usage AS r
    WHERE r.container_id = c.id
    ORDER BY r.timestamp DESC
    LIMIT 1
) AS latest ON true;

COMMENT ON VIEW container_details IS
    'Containers with names of what they refer to and their newest usage sample.';

-- A watch ends when its client goes away or when the time that its client gave is over: that is no failure.
CREATE VIEW user_operation_stats WITH (security_invoker = true) AS
SELECT
    u.id AS user_id,
    u.username,
    u.full_name,
    count(ol.id) AS total_operations,
    count(ol.id) FILTER (WHERE ol.status_code >= 200 AND ol.status_code < 300) AS successful_operations,
    count(ol.id) FILTER (WHERE ol.status_code >= 400 AND NOT (
        ol.request_method IS NOT DISTINCT FROM 'STREAM' AND (ol.error_code IS NOT DISTINCT FROM 'CANCELLED'
        OR (ol.action = 'watch' AND ol.error_code IS NOT DISTINCT FROM 'DEADLINE_EXCEEDED')))) AS failed_operations,
    count(ol.id) FILTER (WHERE ol.action = 'create') AS create_operations,
    count(ol.id) FILTER (WHERE ol.action = 'start') AS start_operations,
    count(ol.id) FILTER (WHERE ol.action = 'stop') AS stop_operations,
    count(ol.id) FILTER (WHERE ol.action = 'delete') AS delete_operations,
    min(ol.started_at) AS first_operation_at,
    max(ol.started_at) AS last_operation_at,
    avg(ol.duration_ms) AS avg_duration_ms,
    count(ol.id) FILTER (WHERE ol.started_at >= now() - interval '30 days') AS operations_last_30_days
FROM users AS u
LEFT JOIN operation_logs AS ol ON ol.user_id = u.id
GROUP BY u.id, u.username, u.full_name;

COMMENT ON VIEW user_operation_stats IS 'What each visible user did, as far as the caller may see the log.';

-- An image counts once for each namespace. The unique index is what REFRESH ... CONCURRENTLY needs.
CREATE MATERIALIZED VIEW container_summary AS
SELECT
    n.id AS namespace_id,
    n.name AS namespace_name,
    coalesce(c.total_containers, 0) AS total_containers,
    coalesce(c.running_containers, 0) AS running_containers,
    coalesce(c.stopped_containers, 0) AS stopped_containers,
    coalesce(c.failed_containers, 0) AS failed_containers,
    coalesce(i.total_size_bytes, 0) AS total_size_bytes
FROM namespaces AS n
LEFT JOIN (
    SELECT namespace_id,
           count(*) AS total_containers,
           count(*) FILTER (WHERE status = 'running') AS running_containers,
           count(*) FILTER (WHERE status = 'stopped') AS stopped_containers,
           count(*) FILTER (WHERE status = 'failed') AS failed_containers
    FROM containers GROUP BY namespace_id
) AS c ON c.namespace_id = n.id
LEFT JOIN (
    SELECT used.namespace_id, sum(ci.size_bytes) AS total_size_bytes
    FROM (SELECT DISTINCT namespace_id, image_id FROM containers) AS used
    JOIN container_images AS ci ON ci.id = used.image_id
    GROUP BY used.namespace_id
) AS i ON i.namespace_id = n.id
WHERE n.deleted_at IS NULL;

CREATE UNIQUE INDEX uq_container_summary_namespace_id ON container_summary (namespace_id);

COMMENT ON MATERIALIZED VIEW container_summary IS
    'Containers and image sizes per namespace, refreshed every hour.';

-- pg_stats hides tables under row-level security from everybody but the owner.
CREATE VIEW database_stats WITH (security_invoker = true) AS
SELECT schemaname, tablename, attname AS column_name, n_distinct, correlation
FROM pg_stats
WHERE schemaname = 'public'
ORDER BY tablename, attname;

COMMENT ON VIEW database_stats IS 'What the planner knows of each column; read as the owner.';

CREATE VIEW table_sizes WITH (security_invoker = true) AS
SELECT
    n.nspname AS schemaname,
    c.relname AS tablename,
    pg_size_pretty(s.total_bytes) AS total_size,
    pg_size_pretty(s.table_bytes) AS table_size,
    pg_size_pretty(s.total_bytes - s.table_bytes) AS index_size,
    s.total_bytes::bigint AS total_bytes,
    s.table_bytes::bigint AS table_bytes,
    (s.total_bytes - s.table_bytes)::bigint AS index_bytes,
    s.estimated_rows::bigint AS estimated_rows,
    (SELECT p.relname FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent
     WHERE i.inhrelid = c.oid) AS partition_of
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT sum(pg_total_relation_size(t.relid)) AS total_bytes,
           sum(pg_relation_size(t.relid)) AS table_bytes,
           sum(greatest(leaf.reltuples, 0)) FILTER (WHERE t.isleaf) AS estimated_rows
    FROM (SELECT c.oid::regclass AS relid, true AS isleaf WHERE c.relkind <> 'p'
          UNION ALL SELECT pt.relid, pt.isleaf FROM pg_partition_tree(c.oid) AS pt WHERE c.relkind = 'p') AS t
    JOIN pg_class AS leaf ON leaf.oid = t.relid
) AS s
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'm')
ORDER BY s.total_bytes DESC;

COMMENT ON VIEW table_sizes IS
    'Sizes of tables; a partitioned table''s are those of its partitions together.';

-- One branch for each watched resource type: its rows, with the namespace that a caller must reach to see them. The
-- functions that keep rendered messages, and the backfill of missing ones, go by this view.
CREATE VIEW watched_rows WITH (security_invoker = true) AS
SELECT 'config_map'::text AS resource_type, id AS resource_id, namespace_id, row_version FROM config_maps
UNION ALL
SELECT 'container', id, namespace_id, row_version FROM containers
UNION ALL
SELECT 'namespace', id, id, row_version FROM namespaces WHERE deleted_at IS NULL
UNION ALL
SELECT 'secret', id, namespace_id, row_version FROM secrets
UNION ALL
SELECT 'volume', id, namespace_id, row_version FROM volumes;

COMMENT ON VIEW watched_rows IS 'The rows of every watched resource type, by type and id, with their namespaces and versions.';
