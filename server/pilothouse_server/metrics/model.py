"""Values of usage, independent of collection, storage and transport.

A stored sample has no percentages: the database computes them from use and request (see `repository.samples`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec


class ProgramUsage(msgspec.Struct, frozen=True):
    """Usage of one program, in all pods of its container together."""

    name: str
    cpu_cores_used: float
    memory_bytes_used: int


class UsageSample(msgspec.Struct, frozen=True):
    """Usage of one container, all its pods together. Cores and bytes; None if unset or unknown.

    Requests and limits are those of the measured pods. Network counters count since the pods started. `programs`: cores
    and bytes of each program by its name, as JSON: `{"main": [0.25, 1048576]}`; None if there is only one.
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
    """A sample as it was stored, with the names that it is shown by."""

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

    `gone`: samples without an existing container; `out_of_range`: samples of times that are not stored; `repeated`:
    samples that were stored before.
    """

    stored: int = 0
    gone: int = 0
    out_of_range: int = 0
    repeated: int = 0


class TimeRange(msgspec.Struct, frozen=True):
    """Times at which samples may be stored: `oldest <= timestamp < newest`."""

    oldest: datetime
    newest: datetime

    def holds(self, moment: datetime) -> bool:
        """Whether a sample of that moment may be stored."""
        return self.oldest <= moment < self.newest


class UsageTarget(msgspec.Struct, frozen=True):
    """A container for which samples are recorded, with its requests (all its replicas together)."""

    container_id: int
    namespace_id: int
    cpu_cores_request: float | None
    cpu_cores_limit: float | None
    memory_bytes_request: int | None
    memory_bytes_limit: int | None


class StepSizes(msgspec.Struct, frozen=True):
    """A range of time cut into steps, in whole seconds since 1970-01-01 UTC.

    `start` and `end` are multiples of `step`; `end` belongs no more to it.
    """

    start: int
    end: int
    step: int

    @property
    def count(self) -> int:
        """Steps in the range."""
        return (self.end - self.start) // self.step


class UsageSubject(msgspec.Struct, frozen=True):
    """A container that a series is about."""

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
    """The points of a container's day at steps of an hour, rendered one behind the other.

    The day begins at `at`, in seconds since 1970-01-01 UTC; `hours` has a bit for each hour that has a point, the
    first one lowest.
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
    """How many connections of one kind the database has."""

    role_name: str
    application_name: str
    state: str
    count: int


class SlowQuery(msgspec.Struct, frozen=True):
    """A statement without its constants, with its cost."""

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
    """How much of a table and of its B-tree indexes is empty, in bytes, as estimated."""

    table_name: str
    table_bytes: int
    table_bloat_bytes: int
    index_bytes: int
    index_bloat_bytes: int


class PartitionGrowth(msgspec.Struct, frozen=True):
    """How a partition has grown. Its range is one of times or of revisions."""

    table_name: str
    partition_name: str
    range_start: str
    range_end: str
    total_bytes: int
    estimated_rows: int
    bytes_per_day: float


class PeriodicJob(msgspec.Struct, frozen=True):
    """How the runs of a periodic job ended. `failures`: in a row, since `failing_since`; `last_failure` is a reason."""

    name: str
    failures: int
    failing_since: datetime | None
    last_failure_at: datetime | None
    last_failure: str
    last_success_at: datetime | None


class OldestSnapshot(msgspec.Struct, frozen=True):
    """A reason why VACUUM removes no rows: a session, standby, slot or prepared transaction.

    Its snapshot is `transactions` old; `seconds` since its transaction began, 0 if unknown.
    """

    kind: str
    name: str
    state: str
    transactions: int
    seconds: float


class DatabaseStats(msgspec.Struct, frozen=True):
    """The state of the database. `slow_queries` is None where the extension that counts them cannot be read."""

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
    """A row of the view `table_sizes`, with the results of vacuum."""

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
