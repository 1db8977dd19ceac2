"""Usage: value ↔ protobuf; the differences between the two."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_server.metrics import model
from pilothouse_server.metrics.operations import Recording, RecordingReport, Rendering, TopBy
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences
from pilothouse_server.rpc.encoding import embedded
from pilothouse_server.rpc.validation import problem_of

_DAY: Final = 86400
_HOUR: Final = 3600
# Rendering this many points takes about a millisecond.
_POINTS_OF_A_PIECE: Final = 200
TOP_BY: Mapping[int, TopBy] = {pb.TOP_BY_UNSPECIFIED: "cpu", pb.TOP_BY_CPU: "cpu", pb.TOP_BY_MEMORY: "memory"}


def _slow_queries_available(value: model.DatabaseStats) -> bool:
    return value.slow_queries is not None


def _uptime(value: model.ContainerDetails) -> timedelta | None:
    return None if value.uptime_seconds is None else timedelta(seconds=value.uptime_seconds)


USAGE_SAMPLE = AnswerConverter(
    model.StoredSample,
    pb.UsageSample,
    Differences(struct_only=("id", "container_id", "namespace_id")),
    parts=(AnswerConverter(model.ProgramUsage, pb.ProgramUsage),),
)
# For recorded samples: the container is found by its name, and the database computes the percentages.
_SAMPLE: Converter[model.UsageSample, pb.UsageSample] = Converter(
    model.UsageSample,
    pb.UsageSample,
    Differences(
        struct_only=("container_id", "namespace_id", "programs"),
        message_only=(
            *("namespace", "container", "container_uid", "programs"),
            *("cpu_usage_percent", "memory_usage_percent", "disk_usage_percent"),
        ),
        constants={"pods": 1},
    ),
)
_read_sample = _SAMPLE.from_proto
_SERIES = AnswerConverter(
    model.UsageSubject, pb.UsageSeries, Differences(struct_only=("container_id",), message_only=("points",))
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
    """Returns a received sample before its container is looked up; for a malformed sample, only the fault."""
    if fault := problem_of(message):
        return Recording("", "", None, None, fault)
    sample = _read_sample(message)
    moment = sample.timestamp if message.HasField("timestamp") else None
    return Recording(message.namespace, message.container, moment, sample)


def report(value: RecordingReport) -> pb.RecordUsageResponse:
    """Returns the result of recording samples."""
    return pb.RecordUsageResponse(
        accepted_count=value.accepted,
        rejected_count=value.rejected,
        rejections=[
            pb.UsageRejection(reason=item.reason, count=item.count, example=item.example)
            for item in value.refusals.values()
        ],
    )


def watch_answer(value: model.StoredSample) -> bytes:
    """Returns the serialized response of a watch with one sample.

    Concatenated responses are one response with all samples, because protobuf appends repeated fields.
    """
    return pb.WatchUsageResponse(samples=[USAGE_SAMPLE.to_proto(value)]).SerializeToString()


def _points(points: Iterable[model.Point]) -> bytes:
    """Returns points as a part of a serialized series. Concatenated parts are one series with all points."""
    message = pb.UsageSeries()
    add, fill = message.points.add, _POINT.fill
    for point in points:
        shown = add()
        # Setting whole seconds is several times as fast as converting a datetime.
        shown.timestamp.seconds = point.at
        fill(point, shown)
    return message.SerializeToString()


# Raise this version in a release that renders more fields of a point.
POINTS: Final = Rendering(1, _points)


def series(pieces: Sequence[bytes]) -> bytes:
    """Returns the series of one container as a part of a serialized response, from its `pieces_of_series`."""
    return embedded(pb.QueryUsageResponse.SERIES_FIELD_NUMBER, *pieces)


def pieces_of_series(
    subject: model.UsageSubject, parts: Sequence[model.PackedDay | model.Point], steps: model.StepSizes
) -> Iterator[bytes]:
    """Yields the serialized series of one container, a day or some points at a time; `parts` must be in order."""
    yield _SERIES.to_proto(subject).SerializeToString()
    for packed, run in itertools.groupby(parts, lambda part: isinstance(part, model.PackedDay)):
        if packed:
            yield from (_within(day, steps) for day in run if isinstance(day, model.PackedDay))
        else:
            points = (part for part in run if isinstance(part, model.Point))
            while some := list(itertools.islice(points, _POINTS_OF_A_PIECE)):
                yield _points(some)


def _within(day: model.PackedDay, steps: model.StepSizes) -> bytes:
    """Returns the points of a day that are within the range."""
    if steps.start <= day.at and day.at + _DAY <= steps.end:
        return day.points
    begin = end = at = 0
    for hour in range(24):
        if not day.hours >> hour & 1:
            continue
        moment = day.at + hour * _HOUR
        # Each point has a tag, a length of one byte (no point has 128 bytes), and its content.
        at += 2 + day.points[at + 1]
        if moment < steps.start:
            begin = at
        if moment < steps.end:
            end = at
    return day.points[begin:end]
