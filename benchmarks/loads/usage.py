"""Usage samples, sent to the product in one stream or copied with bare asyncpg; and queries of usage.

The samples are generated before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc.aio

from benchmarks.child import answering
from pilothouse.metrics.v1 import metrics_pb2 as pb

_SERVICE = "/pilothouse.metrics.v1.MetricsService"
_MESSAGE_SAMPLES = 1_000
_LIMIT_BYTES = 64 << 20
_OPTIONS = (("grpc.max_receive_message_length", _LIMIT_BYTES),)
_COLUMNS = (
    "container_id",
    "namespace_id",
    "timestamp",
    "cpu_cores_used",
    "cpu_cores_request",
    "cpu_cores_limit",
    "cpu_usage_percent",
    "memory_bytes_used",
    "memory_bytes_request",
    "memory_bytes_limit",
    "memory_usage_percent",
    "network_bytes_rx",
    "network_bytes_tx",
    "disk_bytes_used",
    "disk_bytes_total",
    "disk_usage_percent",
)


async def record(address: str, token: str, containers: list[list[Any]], samples: int) -> dict[str, float]:
    """Returns the samples stored per second, and in total; `containers` are (id, namespace id, name, namespace)."""
    messages = []
    moment = datetime.now(UTC)
    for first in range(0, samples, _MESSAGE_SAMPLES):
        request = pb.RecordUsageRequest()
        for number in range(first, first + _MESSAGE_SAMPLES):
            _, _, name, namespace = containers[number % len(containers)]
            sample = request.samples.add(
                namespace=namespace,
                container=name,
                cpu_cores_used=0.25,
                memory_bytes_used=100_000_000 + number,
                network_bytes_rx=number,
                network_bytes_tx=number,
                disk_bytes_used=1_000_000,
                disk_bytes_total=10_000_000,
            )
            sample.timestamp.FromDatetime(moment - timedelta(microseconds=number))
        messages.append(request.SerializeToString())

    async def requests() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
            f"{_SERVICE}/RecordUsage"
        )
        began = time.perf_counter()
        answer = await call(requests(), metadata=(("authorization", f"Bearer {token}"),))
        taken = time.perf_counter() - began
    report = pb.RecordUsageResponse.FromString(answer)
    if report.accepted_count != len(messages) * _MESSAGE_SAMPLES:
        raise RuntimeError(f"only {report.accepted_count} samples were stored: {report}")
    return {"rate": report.accepted_count / taken, "calls": report.accepted_count}


async def copy(dsn: str, table: str, containers: list[list[Any]], samples: int) -> dict[str, float]:
    """Returns the rows copied per second, and in total, by the superuser in one transaction."""
    moment = datetime.now(UTC)
    rows = []
    for number in range(samples):
        container, namespace, _, _ = containers[number % len(containers)]
        at = moment - timedelta(microseconds=number)
        figures = (0.25, 0.1, 0.5, 50.0, 100_000_000 + number, 134_217_728, 268_435_456, 37.25)
        rows.append((container, namespace, at, *figures, number, number, 1_000_000, 10_000_000, 10.0))
    connection = await asyncpg.connect(dsn)
    try:
        began = time.perf_counter()
        await connection.copy_records_to_table(table, records=rows, columns=_COLUMNS)
        return {"rate": samples / (time.perf_counter() - began), "calls": samples}
    finally:
        await connection.close()


async def query(address: str, token: str, days: int, container: str = "", namespace: str = "") -> list[float]:
    """Returns the seconds until all pages of hourly usage have arrived, and the number of points in them."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    request = pb.QueryUsageRequest(page_size=1_000, container=container, namespace=namespace)
    request.start_time.FromDatetime(end - timedelta(days=days))
    request.end_time.FromDatetime(end)
    request.step.FromSeconds(3600)
    points = 0
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{_SERVICE}/QueryUsage")
        metadata = (("authorization", f"Bearer {token}"),)
        await channel.channel_ready()
        began = time.perf_counter()
        while True:
            answer = pb.QueryUsageResponse.FromString(
                await call(request.SerializeToString(), metadata=metadata)
            )
            points += sum(len(series.points) for series in answer.series)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return [time.perf_counter() - began, points]


_AGGREGATE = """
SELECT container_id, date_trunc('hour', timestamp) AS bucket, count(*), avg(cpu_cores_used), max(cpu_cores_used),
       CAST(avg(memory_bytes_used) AS bigint), max(memory_bytes_used), max(network_bytes_rx) - min(network_bytes_rx),
       max(network_bytes_tx) - min(network_bytes_tx), max(disk_bytes_used)
FROM bare_usage
WHERE timestamp >= date_trunc('hour', now()) - make_interval(days => $1::integer)
  AND timestamp < date_trunc('hour', now()) AND ($2::bigint IS NULL OR container_id = $2)
GROUP BY 1, 2 ORDER BY 1, 2
"""


async def aggregate(dsn: str, days: int, container_id: int | None = None) -> list[float]:
    """Returns the same figures for one aggregate over the samples."""
    connection = await asyncpg.connect(dsn)
    try:
        statement = await connection.prepare(_AGGREGATE)
        began = time.perf_counter()
        rows = await statement.fetch(days, container_id)
        return [time.perf_counter() - began, len(rows)]
    finally:
        await connection.close()


def main() -> None:
    """Runs the process."""
    answering({"record": record, "copy": copy, "query": query, "aggregate": aggregate})


if __name__ == "__main__":
    main()
