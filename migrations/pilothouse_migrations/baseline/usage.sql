-- Raw samples are in daily partitions and dropped by the day; roll-ups let a year's graph be drawn without them.
-- Percentages are of the limit, else of the request, else null; eleven busy cores exceed 999 %.
--
-- container_usage_days holds one row for each day that has hourly roll-ups, with its points as a response carries
-- them: a month at steps of an hour is thirty rows instead of 720. See the function mark_usage_days.

CREATE SEQUENCE container_resource_usage_id_seq;

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
    CONSTRAINT fk_container_resource_usage_container
        FOREIGN KEY (container_id, namespace_id) REFERENCES containers(id, namespace_id) ON DELETE CASCADE
) PARTITION BY RANGE ("timestamp");

ALTER SEQUENCE container_resource_usage_id_seq OWNED BY container_resource_usage.id;

CREATE INDEX idx_container_resource_usage_container_id ON container_resource_usage (container_id, namespace_id);
CREATE INDEX idx_container_resource_usage_cpu_usage ON container_resource_usage (cpu_usage_percent);
CREATE INDEX idx_container_resource_usage_memory_usage ON container_resource_usage (memory_usage_percent);
CREATE INDEX idx_container_resource_usage_timestamp ON container_resource_usage (timestamp);
CREATE INDEX idx_resource_usage_container_time ON container_resource_usage (container_id, timestamp DESC);

COMMENT ON TABLE container_resource_usage IS 'Usage samples of containers, all replicas together, as collected.';
COMMENT ON COLUMN container_resource_usage.id IS 'Key of the row together with timestamp; its order means nothing.';
COMMENT ON COLUMN container_resource_usage.container_id IS 'The container it belongs to.';
COMMENT ON COLUMN container_resource_usage.namespace_id IS 'The namespace it belongs to.';
COMMENT ON COLUMN container_resource_usage.timestamp IS 'When the sample was taken; the table is partitioned by it.';
COMMENT ON COLUMN container_resource_usage.cpu_cores_used IS 'CPU in cores.';
COMMENT ON COLUMN container_resource_usage.cpu_cores_request IS 'Requested cores at that time.';
COMMENT ON COLUMN container_resource_usage.cpu_cores_limit IS 'Limit of cores at that time.';
COMMENT ON COLUMN container_resource_usage.cpu_usage_percent IS
    'Of the limit if there is one, else of the request, else null; the same for memory.';
COMMENT ON COLUMN container_resource_usage.memory_bytes_used IS 'Memory in use.';
COMMENT ON COLUMN container_resource_usage.memory_bytes_request IS 'Requested memory at that time.';
COMMENT ON COLUMN container_resource_usage.memory_bytes_limit IS 'Memory limit at that time.';
COMMENT ON COLUMN container_resource_usage.memory_usage_percent IS 'As cpu_usage_percent.';
COMMENT ON COLUMN container_resource_usage.network_bytes_rx IS 'Counter since the pod started, as the kubelet has it.';
COMMENT ON COLUMN container_resource_usage.network_bytes_tx IS 'Bytes sent since the pod started.';
COMMENT ON COLUMN container_resource_usage.network_packets_rx IS 'Packets received since the pod started.';
COMMENT ON COLUMN container_resource_usage.network_packets_tx IS 'Packets sent since the pod started.';
COMMENT ON COLUMN container_resource_usage.disk_bytes_used IS 'Disk in use.';
COMMENT ON COLUMN container_resource_usage.disk_bytes_total IS 'Disk that is there.';
COMMENT ON COLUMN container_resource_usage.disk_usage_percent IS 'Of disk_bytes_total.';
COMMENT ON COLUMN container_resource_usage.filesystem_reads IS 'Reads since the pod started.';
COMMENT ON COLUMN container_resource_usage.filesystem_writes IS 'Writes since the pod started.';
COMMENT ON COLUMN container_resource_usage.metadata IS 'Further facts about the sample.';


CREATE TABLE container_usage_hourly (
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
    CONSTRAINT pk_container_usage_hourly PRIMARY KEY (container_id, bucket),
    CONSTRAINT fk_container_usage_hourly_container
        FOREIGN KEY (container_id, namespace_id) REFERENCES containers(id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT ck_container_usage_hourly_samples CHECK (samples > 0)
);

CREATE INDEX idx_container_usage_hourly_bucket ON container_usage_hourly (bucket);
CREATE INDEX idx_container_usage_hourly_container ON container_usage_hourly (container_id, namespace_id);
CREATE INDEX idx_container_usage_hourly_namespace_bucket ON container_usage_hourly (namespace_id, bucket);

COMMENT ON TABLE container_usage_hourly IS 'Usage rolled up by the hour.';
COMMENT ON COLUMN container_usage_hourly.container_id IS 'The container it belongs to.';
COMMENT ON COLUMN container_usage_hourly.namespace_id IS 'The namespace it belongs to.';
COMMENT ON COLUMN container_usage_hourly.bucket IS 'Start of the hour in UTC.';
COMMENT ON COLUMN container_usage_hourly.samples IS 'Samples of the hour.';
COMMENT ON COLUMN container_usage_hourly.cpu_cores_avg IS 'Average cores.';
COMMENT ON COLUMN container_usage_hourly.cpu_cores_max IS 'Most cores in a sample.';
COMMENT ON COLUMN container_usage_hourly.memory_bytes_avg IS 'Average memory.';
COMMENT ON COLUMN container_usage_hourly.memory_bytes_max IS 'Most memory in a sample.';
COMMENT ON COLUMN container_usage_hourly.network_bytes_rx IS
    'Bytes received within the hour: sum of the counter''s increases.';
COMMENT ON COLUMN container_usage_hourly.network_bytes_tx IS 'Bytes sent within the hour.';
COMMENT ON COLUMN container_usage_hourly.disk_bytes_max IS 'Most disk in a sample.';


CREATE TABLE container_usage_daily (
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
    CONSTRAINT pk_container_usage_daily PRIMARY KEY (container_id, bucket),
    CONSTRAINT fk_container_usage_daily_container
        FOREIGN KEY (container_id, namespace_id) REFERENCES containers(id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT ck_container_usage_daily_samples CHECK (samples > 0)
);

CREATE INDEX idx_container_usage_daily_bucket ON container_usage_daily (bucket);
CREATE INDEX idx_container_usage_daily_container ON container_usage_daily (container_id, namespace_id);
CREATE INDEX idx_container_usage_daily_namespace_bucket ON container_usage_daily (namespace_id, bucket);

COMMENT ON TABLE container_usage_daily IS 'Usage rolled up by the day.';
COMMENT ON COLUMN container_usage_daily.container_id IS 'The container it belongs to.';
COMMENT ON COLUMN container_usage_daily.namespace_id IS 'The namespace it belongs to.';
COMMENT ON COLUMN container_usage_daily.bucket IS 'Start of the day in UTC.';
COMMENT ON COLUMN container_usage_daily.samples IS 'Samples of the day.';
COMMENT ON COLUMN container_usage_daily.cpu_cores_avg IS 'Average cores.';
COMMENT ON COLUMN container_usage_daily.cpu_cores_max IS 'Most cores in a sample.';
COMMENT ON COLUMN container_usage_daily.memory_bytes_avg IS 'Average memory.';
COMMENT ON COLUMN container_usage_daily.memory_bytes_max IS 'Most memory in a sample.';
COMMENT ON COLUMN container_usage_daily.network_bytes_rx IS
    'Bytes received within the day: sum of the counter''s increases.';
COMMENT ON COLUMN container_usage_daily.network_bytes_tx IS 'Bytes sent within the day.';
COMMENT ON COLUMN container_usage_daily.disk_bytes_max IS 'Most disk in a sample.';


CREATE TABLE container_usage_days (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    day timestamptz NOT NULL,
    format smallint NOT NULL DEFAULT 0,
    hours integer NOT NULL DEFAULT 0,
    points bytea,
    CONSTRAINT pk_container_usage_days PRIMARY KEY (container_id, day),
    CONSTRAINT fk_container_usage_days_container
        FOREIGN KEY (container_id, namespace_id) REFERENCES containers(id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT ck_container_usage_days_length CHECK (octet_length(points) <= 4096),
    CONSTRAINT ck_container_usage_days_points CHECK ((format > 0) = (points IS NOT NULL))
);

ALTER TABLE container_usage_days ALTER COLUMN points SET STORAGE PLAIN;

CREATE INDEX idx_container_usage_days_container ON container_usage_days (container_id, namespace_id);
CREATE INDEX idx_container_usage_days_format ON container_usage_days (format, day, container_id);
CREATE INDEX idx_container_usage_days_namespace ON container_usage_days (namespace_id);

COMMENT ON TABLE container_usage_days IS
    'Days of which there are hourly roll-ups, with those of a day in one row, ready to be sent.';
COMMENT ON COLUMN container_usage_days.container_id IS 'The container it belongs to.';
COMMENT ON COLUMN container_usage_days.namespace_id IS 'The namespace it belongs to.';
COMMENT ON COLUMN container_usage_days.day IS 'Start of the day in UTC.';
COMMENT ON COLUMN container_usage_days.format IS 'Format of points; 0: there are none, readers take the hours.';
COMMENT ON COLUMN container_usage_days.hours IS 'Which hours have points, bit by bit from the first hour.';
COMMENT ON COLUMN container_usage_days.points IS 'The serialised points of the day.';
