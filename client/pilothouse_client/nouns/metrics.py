"""Usage of containers; `pilothouse.metrics.v1.MetricsService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Stream, Unary, Upload, whole
from pilothouse_client.transport import TransportT


class Metrics(NounClient[TransportT]):
    """`client.metrics`."""

    record_usage = Upload(pb.RecordUsageRequest, pb.RecordUsageResponse, whole)
    # Each page contains the step that was used: `query_usage(...).pages()`.
    query_usage = Pages(pb.QueryUsageRequest, pb.QueryUsageResponse, lambda answer: answer.series)
    watch_usage = Stream(pb.WatchUsageRequest, pb.WatchUsageResponse, endless=True)
    get_container_details = Unary(
        pb.GetContainerDetailsRequest, pb.GetContainerDetailsResponse, lambda answer: answer.container_details
    )
    get_namespace_summary = Pages(
        pb.GetNamespaceSummaryRequest,
        pb.GetNamespaceSummaryResponse,
        lambda answer: answer.namespace_summaries,
    )
    list_top_containers = Unary(
        pb.ListTopContainersRequest, pb.ListTopContainersResponse, lambda answer: answer.samples
    )
    get_database_stats = Unary(pb.GetDatabaseStatsRequest, pb.GetDatabaseStatsResponse, whole)
    get_table_sizes = Unary(
        pb.GetTableSizesRequest, pb.GetTableSizesResponse, lambda answer: answer.table_sizes
    )
