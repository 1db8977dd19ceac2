-- The rows and partitions that a new database begins with, and the default that needs the first of them.

INSERT INTO stream_head (id) VALUES (1);

INSERT INTO audit_tree (history_id) SELECT h.history_id FROM stream_head AS h WHERE h.id = 1;

ALTER TABLE clusters ALTER COLUMN orphans_decided_in SET DEFAULT current_history();

SELECT create_revision_partitions('events', 0, 3);
SELECT create_monthly_partitions('operation_logs', (now() AT TIME ZONE 'UTC' - interval '1 month')::date, 14);
SELECT create_daily_partitions('container_resource_usage', (now() AT TIME ZONE 'UTC' - interval '1 day')::date, 16);
