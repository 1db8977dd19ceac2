"""Values of usage, independent of collection, storage and transport.

A stored sample is written without percentages: the database computes them from usage, limit and request (see
`repository.samples`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec


class ProgramUsage(msgspec.Struct, frozen=True):
    """Usage of one program, summed over all pods of its container."""

    name: str
    cpu_cores_used: float
    memory_bytes_used: int


class UsageSample(msgspec.Struct, frozen=True):
    """Usage of one container, summed over its pods. Units are cores and bytes; None if unset or unknown.

    Requests and limits are those of the measured pods. Network counters count from the start of the pods. `programs`:
    cores and bytes of each program by its name, as JSON: `{"main": [0.25, 1048576]}`; None if there is only one.
    """

    container_id: int
    namespace_id: int
    timestamp: datetime
    pods: int
    cpu_cores_used: float
    memory_bytes_used: int
    cpu_cores_request: float | None = None
    cpu_cores_limit: float | None = None
    memory_bytes_request: int | None = None
    memory_bytes_limit: int | None = None
    network_bytes_rx: int | None = None
    network_bytes_tx: int | None = None
    disk_bytes_used: int | None = None
    disk_bytes_total: int | None = None
    network_packets_rx: int | None = None
    network_packets_tx: int | None = None
    filesystem_reads: int | None = None
    filesystem_writes: int | None = None
    programs: str | None = None


class StoredSample(msgspec.Struct, frozen=True):
    """A sample as it was stored, with the names that responses show."""

    id: int
    container_id: int
    namespace_id: int
    namespace: str
    container: str
    container_uid: str
    timestamp: datetime
    cpu_cores_used: float
    cpu_cores_request: float | None
    cpu_cores_limit: float | None
    cpu_usage_percent: float | None
    memory_bytes_used: int
    memory_bytes_request: int | None
    memory_bytes_limit: int | None
    memory_usage_percent: float | None
    network_bytes_rx: int | None
    network_bytes_tx: int | None
    network_packets_rx: int | None
    network_packets_tx: int | None
    disk_bytes_used: int | None
    disk_bytes_total: int | None
    disk_usage_percent: float | None
    filesystem_reads: int | None
    filesystem_writes: int | None
    programs: tuple[ProgramUsage, ...] = ()


class Stored(msgspec.Struct, frozen=True):
    """The result of a batch.

    `gone`: samples whose container does not exist. `out_of_range`: samples of times that are not stored. `repeated`:
    samples that were stored before.
    """

    stored: int = 0
    gone: int = 0
    out_of_range: int = 0
    repeated: int = 0


class TimeRange(msgspec.Struct, frozen=True):
    """The times for which samples can be stored: `oldest <= timestamp < newest`."""

    oldest: datetime
    newest: datetime

    def holds(self, moment: datetime) -> bool:
        """Returns whether a sample of that time can be stored."""
        return self.oldest <= moment < self.newest


class UsageTarget(msgspec.Struct, frozen=True):
    """A container for which samples are recorded, with its requests and limits, summed over its replicas."""

    container_id: int
    namespace_id: int
    cpu_cores_request: float | None
    cpu_cores_limit: float | None
    memory_bytes_request: int | None
    memory_bytes_limit: int | None


class StepSizes(msgspec.Struct, frozen=True):
    """A range of time divided into steps, in whole seconds since 1970-01-01 UTC.

    `start` and `end` are multiples of `step`; `end` is exclusive.
    """

    start: int
    end: int
    step: int

    @property
    def count(self) -> int:
        """The number of steps in the range."""
        return (self.end - self.start) // self.step


class UsageSubject(msgspec.Struct, frozen=True):
    """The container of a series."""

    container_id: int
    container_uid: str
    namespace: str
    container: str


class Point(msgspec.Struct, frozen=True):
    """Usage of one container over the step that begins at `at`, in seconds since 1970-01-01 UTC."""

    container_id: int
    at: int
    samples: int
    cpu_cores_avg: float
    cpu_cores_max: float
    memory_bytes_avg: int
    memory_bytes_max: int
    network_bytes_rx: int
    network_bytes_tx: int
    disk_bytes_max: int


class PackedDay(msgspec.Struct, frozen=True):
    """The hourly points of one day of a container, rendered and concatenated.

    The day begins at `at`, in seconds since 1970-01-01 UTC. `hours` has a bit for each hour that has a point; the
    lowest bit is the first hour.
    """

    container_id: int
    at: int
    hours: int
    points: bytes


class ContainerDetails(msgspec.Struct, frozen=True):
    """A row of the view `container_details`."""

    id: int
    namespace_id: int
    name: str
    display_name: str
    status: str
    phase: str
    reason: str
    message: str
    kubernetes_name: str
    pod_name: str
    pod_ip: str
    host_ip: str
    restart_count: int
    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    started_at: datetime | None
    finished_at: datetime | None
    created_at: datetime
    updated_at: datetime
    namespace_name: str
    namespace_k8s_name: str
    image_name: str
    image_tag: str
    image_repository: str
    created_by_username: str
    created_by_full_name: str
    uptime_seconds: float | None
    cpu_usage_percent: float | None
    memory_usage_percent: float | None
    last_metric_timestamp: datetime | None


class NamespaceSummary(msgspec.Struct, frozen=True):
    """A row of the materialised view `container_summary`."""

    namespace_name: str
    total_containers: int
    running_containers: int
    stopped_containers: int
    failed_containers: int
    total_size_bytes: int


class Connections(msgspec.Struct, frozen=True):
    """The number of connections to the database with the same role, application and state."""

    role_name: str
    application_name: str
    state: str
    count: int


class SlowQuery(msgspec.Struct, frozen=True):
    """A statement without its constants, and its cost."""

    query: str
    calls: int
    total: timedelta
    mean: timedelta
    longest: timedelta
    rows: int


class ColumnStatistics(msgspec.Struct, frozen=True):
    """A row of the view `database_stats`."""

    table_name: str
    column_name: str
    n_distinct: float
    correlation: float | None


class TableBloat(msgspec.Struct, frozen=True):
    """Estimated empty bytes of a table and of its B-tree indexes, with their sizes."""

    table_name: str
    table_bytes: int
    table_bloat_bytes: int
    index_bytes: int
    index_bloat_bytes: int


class PartitionGrowth(msgspec.Struct, frozen=True):
    """The growth of a partition. Its range is one of times or of revisions."""

    table_name: str
    partition_name: str
    range_start: str
    range_end: str
    total_bytes: int
    estimated_rows: int
    bytes_per_day: float


class PeriodicJob(msgspec.Struct, frozen=True):
    """The results of a periodic job. `failures`: consecutive, since `failing_since`. `last_failure`: the reason."""

    name: str
    failures: int
    failing_since: datetime | None
    last_failure_at: datetime | None
    last_failure: str
    last_success_at: datetime | None


class OldestSnapshot(msgspec.Struct, frozen=True):
    """A session, standby, slot or prepared transaction whose old snapshot keeps VACUUM from removing rows.

    `transactions`: age of its snapshot in transactions. `seconds`: age of its transaction; 0 if unknown.
    """

    kind: str
    name: str
    state: str
    transactions: int
    seconds: float


class DatabaseStats(msgspec.Struct, frozen=True):
    """The state of the database. `slow_queries`: None if the extension that counts them cannot be read."""

    server_version: str
    database_bytes: int
    max_connections: int
    connections: tuple[Connections, ...]
    cache_hit_ratio: float | None
    committed_transactions: int
    rolled_back_transactions: int
    deadlocks: int
    temporary_bytes: int
    stats_reset_at: datetime | None
    slow_queries: tuple[SlowQuery, ...] | None
    column_statistics: tuple[ColumnStatistics, ...]
    table_bloat: tuple[TableBloat, ...]
    partition_growth: tuple[PartitionGrowth, ...]
    periodic_jobs: tuple[PeriodicJob, ...]


class TableSize(msgspec.Struct, frozen=True):
    """A row of the view `table_sizes`, with the dead rows and the times of the last vacuum and analyze."""

    table_name: str
    partition_of: str
    total_size: str
    table_size: str
    index_size: str
    total_bytes: int
    table_bytes: int
    index_bytes: int
    estimated_rows: int
    dead_rows: int
    last_vacuum_at: datetime | None
    last_analyze_at: datetime | None
