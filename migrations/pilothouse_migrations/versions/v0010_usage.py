"""Resource usage: raw samples in daily partitions, hourly and daily roll-ups.

Percentages are of the limit if there is one, else of the request, else null. `numeric(5,2)` of the seed overflows
at 1000 % on eleven busy cores; it is `numeric(12,2)`.

Roll-ups let a year's graph be drawn without reading raw samples, which retention drops by the day.

All of the seed's indexes are made. `idx_container_resource_usage_container_id` covers the foreign key's second
column, too.
"""

from __future__ import annotations

from pilothouse_migrations.statements import belongs_to_namespace, run

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE SEQUENCE container_resource_usage_id_seq AS bigint;

CREATE TABLE container_resource_usage (
    id bigint NOT NULL DEFAULT nextval('container_resource_usage_id_seq'),
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    timestamp timestamptz NOT NULL DEFAULT now(),
    cpu_cores_used numeric(10,4),
    cpu_cores_request numeric(10,4),
    cpu_cores_limit numeric(10,4),
    cpu_usage_percent numeric(12,2),
    memory_bytes_used bigint,
    memory_bytes_request bigint,
    memory_bytes_limit bigint,
    memory_usage_percent numeric(12,2),
    network_bytes_rx bigint,
    network_bytes_tx bigint,
    network_packets_rx bigint,
    network_packets_tx bigint,
    disk_bytes_used bigint,
    disk_bytes_total bigint,
    disk_usage_percent numeric(12,2),
    filesystem_reads bigint,
    filesystem_writes bigint,
    metadata jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT pk_container_resource_usage PRIMARY KEY (id, timestamp),
    CONSTRAINT fk_container_resource_usage_container FOREIGN KEY (container_id, namespace_id)
        REFERENCES containers (id, namespace_id) ON DELETE CASCADE
) PARTITION BY RANGE (timestamp);

ALTER SEQUENCE container_resource_usage_id_seq OWNED BY container_resource_usage.id;

COMMENT ON TABLE container_resource_usage IS
    'Usage samples of containers, all replicas together, as collected.';
COMMENT ON COLUMN container_resource_usage.cpu_usage_percent IS
    'Of the limit if there is one, else of the request, else null; the same for memory.';
COMMENT ON COLUMN container_resource_usage.network_bytes_rx IS
    'Counter since the pod started, as the kubelet has it.';

CREATE INDEX idx_container_resource_usage_container_id ON container_resource_usage (container_id, namespace_id);
CREATE INDEX idx_container_resource_usage_timestamp ON container_resource_usage (timestamp);
CREATE INDEX idx_container_resource_usage_cpu_usage ON container_resource_usage (cpu_usage_percent);
CREATE INDEX idx_container_resource_usage_memory_usage ON container_resource_usage (memory_usage_percent);
CREATE INDEX idx_resource_usage_container_time ON container_resource_usage (container_id, timestamp DESC);

SELECT create_daily_partitions('container_resource_usage', (now() AT TIME ZONE 'UTC' - interval '1 day')::date, 16);
""")
    for table, bucket in (("container_usage_hourly", "hour"), ("container_usage_daily", "day")):
        run(f"""
CREATE TABLE {table} (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    bucket timestamptz NOT NULL,
    samples integer NOT NULL,
    cpu_cores_avg numeric(12,4),
    cpu_cores_max numeric(12,4),
    memory_bytes_avg bigint,
    memory_bytes_max bigint,
    network_bytes_rx bigint,
    network_bytes_tx bigint,
    disk_bytes_max bigint,
    CONSTRAINT pk_{table} PRIMARY KEY (container_id, bucket),
    CONSTRAINT fk_{table}_container FOREIGN KEY (container_id, namespace_id)
        REFERENCES containers (id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT ck_{table}_samples CHECK (samples > 0)
);

COMMENT ON TABLE {table} IS 'Usage rolled up by the {bucket}.';
COMMENT ON COLUMN {table}.bucket IS 'Start of the {bucket} in UTC.';
COMMENT ON COLUMN {table}.network_bytes_rx IS
    'Bytes received within the {bucket}: sum of the counter''s increases.';

CREATE INDEX idx_{table}_container ON {table} (container_id, namespace_id);
CREATE INDEX idx_{table}_namespace_bucket ON {table} (namespace_id, bucket);
CREATE INDEX idx_{table}_bucket ON {table} (bucket);
""")
    for table in ("container_resource_usage", "container_usage_hourly", "container_usage_daily"):
        belongs_to_namespace(table, privileges="SELECT, INSERT")
    run("""
GRANT UPDATE ON container_usage_hourly, container_usage_daily TO @app@;
GRANT USAGE ON SEQUENCE container_resource_usage_id_seq TO @app@, @system@;
""")


def downgrade() -> None:
    run("""
DROP TABLE container_usage_daily;
DROP TABLE container_usage_hourly;
DROP TABLE container_resource_usage;
""")
