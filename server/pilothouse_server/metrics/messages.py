"""Usage: value ↔ protobuf; what differs between the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_server.metrics import model
from pilothouse_server.metrics.operations import Recording, Report, TopBy
from pilothouse_server.rpc.converter import AnswerConverter, Differences

TOP_BY: Mapping[int, TopBy] = {pb.TOP_BY_UNSPECIFIED: "cpu", pb.TOP_BY_CPU: "cpu", pb.TOP_BY_MEMORY: "memory"}
_EPOCH = datetime.fromtimestamp(0, tz=UTC)


def _slow_queries_available(value: model.DatabaseStats) -> bool:
    return value.slow_queries is not None


def _uptime(value: model.ContainerDetails) -> timedelta | None:
    return None if value.uptime_seconds is None else timedelta(seconds=value.uptime_seconds)


USAGE_SAMPLE = AnswerConverter(
    model.StoredSample, pb.UsageSample, Differences(struct_only=("id", "container_id", "namespace_id"))
)
_SERIES = AnswerConverter(
    model.Subject, pb.UsageSeries, Differences(struct_only=("container_id",), message_only=("points",))
)
_POINT = AnswerConverter(
    model.Point, pb.UsagePoint, Differences(struct_only=("container_id", "at"), message_only=("timestamp",))
)
CONTAINER_DETAILS = AnswerConverter(
    model.ContainerDetails,
    pb.ContainerDetails,
    Differences(computed={"uptime": _uptime}, struct_only=("id", "namespace_id", "uptime_seconds")),
)
NAMESPACE_SUMMARY = AnswerConverter(model.NamespaceSummary, pb.NamespaceSummary)
DATABASE_STATS = AnswerConverter(
    model.DatabaseStats,
    pb.GetDatabaseStatsResponse,
    Differences(computed={"slow_queries_available": _slow_queries_available}),
    parts=(
        AnswerConverter(
            model.SlowQuery,
            pb.SlowQuery,
            Differences(
                names={"total_duration": "total", "mean_duration": "mean", "max_duration": "longest"}
            ),
        ),
    ),
)
TABLE_SIZE = AnswerConverter(model.TableSize, pb.TableSize)


def recording(message: pb.UsageSample) -> Recording:
    """A sample from outside, its container not looked up yet."""
    given = message.HasField
    moment = None
    if given("timestamp"):
        # Tens of thousands come a second, and this is several times as fast as the general way.
        time = message.timestamp
        moment = _EPOCH + timedelta(0, time.seconds, time.nanos // 1000)
    return Recording(
        message.namespace,
        message.container,
        moment,
        model.Sample(
            container_id=0,
            namespace_id=0,
            timestamp=moment or _EPOCH,
            pods=1,
            cpu_cores_used=message.cpu_cores_used,
            memory_bytes_used=message.memory_bytes_used,
            cpu_cores_request=message.cpu_cores_request if given("cpu_cores_request") else None,
            cpu_cores_limit=message.cpu_cores_limit if given("cpu_cores_limit") else None,
            memory_bytes_request=message.memory_bytes_request if given("memory_bytes_request") else None,
            memory_bytes_limit=message.memory_bytes_limit if given("memory_bytes_limit") else None,
            network_bytes_rx=message.network_bytes_rx if given("network_bytes_rx") else None,
            network_bytes_tx=message.network_bytes_tx if given("network_bytes_tx") else None,
            disk_bytes_used=message.disk_bytes_used if given("disk_bytes_used") else None,
            disk_bytes_total=message.disk_bytes_total if given("disk_bytes_total") else None,
            network_packets_rx=message.network_packets_rx if given("network_packets_rx") else None,
            network_packets_tx=message.network_packets_tx if given("network_packets_tx") else None,
            filesystem_reads=message.filesystem_reads if given("filesystem_reads") else None,
            filesystem_writes=message.filesystem_writes if given("filesystem_writes") else None,
        ),
    )


def report(value: Report) -> pb.RecordUsageResponse:
    """Returns what became of recorded samples."""
    return pb.RecordUsageResponse(
        accepted_count=value.accepted,
        rejected_count=value.rejected,
        rejections=[
            pb.UsageRejection(reason=item.reason, count=item.count, example=item.example)
            for item in value.refusals.values()
        ],
    )


def watch_answer(value: model.StoredSample) -> bytes:
    """Returns the serialised answer of a watch with one sample. Answers put one after another are one with all samples:
    that is how protobuf reads repeated fields.
    """
    return pb.WatchUsageResponse(samples=[USAGE_SAMPLE.to_proto(value)]).SerializeToString()


def series(subject: model.Subject, points: Iterable[model.Point]) -> pb.UsageSeries:
    """Returns the usage of one container over time."""
    message = _SERIES.to_proto(subject)
    add, fill = message.points.add, _POINT.fill
    for point in points:
        shown = add()
        # Whole seconds: several times as fast as by way of a datetime.
        shown.timestamp.seconds = point.at
        fill(point, shown)
    return message
