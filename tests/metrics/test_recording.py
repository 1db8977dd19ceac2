"""Samples from clients: each is accepted or refused by itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_client.errors import PilothouseError
from tests.metrics.environment import Box
from tests.metrics.served import Served, measured, reasons, request
from tests.waiting import poll_until


async def stored(served: Served, box: Box) -> int:
    (row,) = await served.rows(
        "SELECT count(*) AS count FROM container_resource_usage WHERE container_id = $1", box.id
    )
    return int(row["count"])


async def test_each_sample_is_accepted_or_refused_by_itself(served: Served) -> None:
    box = await served.box("taken")
    await served.box("foreign", "bank")
    now = datetime.now(UTC)
    untimed = pb.UsageSample(namespace="shop", container="taken")
    answer = await served.omar.metrics.record_usage(
        [
            request(
                measured("taken", cpu_cores_used=0.5),
                measured("unknown"),
                measured("foreign", "bank"),
                measured("taken", "nowhere"),
            ),
            request(
                untimed,
                measured("taken", cpu_cores_used=-1.0),
                measured("taken", memory_bytes_used=-1),
                measured("taken", cpu_cores_used=1e9),
                measured("taken", at=now - timedelta(days=300)),
                measured("taken", at=now + timedelta(hours=1)),
                measured("taken", cpu_cores_used=0.25),
            ),
        ]
    )
    assert answer.accepted_count == 2
    assert answer.rejected_count == 9
    assert reasons(answer) == {"CONTAINER_NOT_FOUND": 3, "INVALID_SAMPLE": 4, "TIMESTAMP_OUT_OF_RANGE": 2}
    examples = {rejection.reason: rejection.example for rejection in answer.rejections}
    assert examples["CONTAINER_NOT_FOUND"] == 'sample 1: container "unknown" in namespace "shop" not found'
    assert examples["INVALID_SAMPLE"] == "sample 4: timestamp must be set"
    assert examples["TIMESTAMP_OUT_OF_RANGE"].startswith("sample 8: timestamp must be from ")
    assert await stored(served, box) == 2


async def test_a_malformed_sample_is_refused_by_itself(served: Served) -> None:
    box = await served.box("malformed")
    timeless = measured("malformed")
    timeless.timestamp.nanos = -1
    answer = await served.omar.metrics.record_usage(
        [
            request(
                measured("malformed", cpu_cores_used=math.nan),
                measured("malformed", cpu_cores_limit=math.inf),
                measured("malformed\0"),
                timeless,
            ),
            request(measured("malformed", cpu_cores_used=0.25)),
        ]
    )
    assert (answer.accepted_count, reasons(answer)) == (1, {"INVALID_SAMPLE": 4})
    assert answer.rejections[0].example.startswith("sample 0: cpu_cores_used must be")
    assert await stored(served, box) == 1


async def test_samples_may_be_sent_again(served: Served) -> None:
    box = await served.box("again")
    at = datetime.now(UTC) - timedelta(minutes=2)
    samples = [
        measured("again", at=at + timedelta(seconds=number), cpu_cores_used=number) for number in range(4)
    ]
    first = await served.omar.metrics.record_usage([request(*samples[:3])])
    # The interrupted batch is sent again from its beginning, twice concurrently, with one new sample that it contains
    # twice.
    changed = measured("again", at=at, cpu_cores_used=99.0)
    more = request(changed, *samples[1:], samples[3])
    answers = await asyncio.gather(*(served.omar.metrics.record_usage([more]) for _ in range(2)))
    assert [answer.accepted_count for answer in (first, *answers)] == [3, 5, 5]
    assert [answer.rejected_count for answer in answers] == [0, 0]
    rows = await served.rows(
        "SELECT cpu_cores_used FROM container_resource_usage WHERE container_id = $1 ORDER BY timestamp",
        box.id,
    )
    assert [row["cpu_cores_used"] for row in rows] == [0, 1, 2, 3]


async def test_missing_requests_and_limits_are_those_of_the_container(served: Served) -> None:
    box = await served.box("limited", cpu_limit="500m", memory_request="1Mi", replicas=2)
    sent = measured("limited", cpu_cores_used=0.5, memory_bytes_used=1 << 20, cpu_usage_percent=1.0)
    given = measured("limited", cpu_cores_used=0.5, cpu_cores_limit=2.0)
    await served.omar.metrics.record_usage([request(sent, given)])
    rows = await served.rows(
        "SELECT cpu_cores_limit, cpu_usage_percent, memory_usage_percent FROM container_resource_usage "
        "WHERE container_id = $1 ORDER BY id",
        box.id,
    )
    assert [row["cpu_usage_percent"] for row in rows] == [50, 25]
    assert rows[0]["memory_usage_percent"] == 50
    assert rows[0]["cpu_cores_limit"] == 1


async def test_recording_needs_the_permission_in_each_sample_s_namespace(served: Served) -> None:
    shop, bank = await served.box("asked"), await served.box("asked", "bank")
    answer = await served.olga.metrics.record_usage(
        [request(measured("asked"), measured("asked", "bank"), measured("unknown"))]
    )
    assert answer.accepted_count == 1
    assert reasons(answer) == {"PERMISSION_DENIED": 2}
    assert (await stored(served, shop), await stored(served, bank)) == (0, 1)


async def test_a_caller_without_the_permission_anywhere_is_refused(served: Served) -> None:
    with pytest.raises(PilothouseError) as refused:
        await served.anna.metrics.record_usage([request(measured("idle"))])
    assert (refused.value.code, refused.value.metadata["permission"]) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "metrics.record",
    )


async def test_a_message_that_is_too_large_ends_the_stream(served: Served) -> None:
    with pytest.raises(PilothouseError) as refused:
        await served.omar.metrics.record_usage([request(*[measured("idle")] * 5001)])
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == ["samples"]


async def test_a_long_stream_is_stored_whole(served: Served) -> None:
    box = await served.box("long")
    start = datetime.now(UTC) - timedelta(minutes=1)
    messages = [
        request(
            *(
                measured("long", at=start + timedelta(milliseconds=part * 1700 + index))
                for index in range(1700)
            )
        )
        for part in range(7)
    ]
    answer = await served.omar.metrics.record_usage(messages)
    assert (answer.accepted_count, answer.rejected_count) == (7 * 1700, 0)
    assert await stored(served, box) == 7 * 1700


async def test_an_empty_stream_stores_nothing(served: Served) -> None:
    answer = await served.omar.metrics.record_usage([])
    assert (answer.accepted_count, answer.rejected_count) == (0, 0)


async def test_a_slow_senders_samples_are_stored_while_the_stream_is_open(served: Served) -> None:
    box = await served.box("slow")
    stub, metadata = await served.stub("omar")
    finished = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.RecordUsageRequest]:
        yield request(measured("slow"))
        await finished.wait()
        yield request(measured("slow"))

    async def is_stored() -> bool:
        return await stored(served, box) == 1

    call = stub.RecordUsage(slowly(), metadata=metadata)
    try:
        assert await poll_until(is_stored)
    finally:
        finished.set()
    assert (await call).accepted_count == 2


async def test_the_audit_record_contains_the_counts(served: Served) -> None:
    await served.box("recorded")
    await served.omar.metrics.record_usage([request(measured("recorded"), measured("unrecorded"))])

    async def closing_record() -> bool:
        return bool(
            await served.rows(
                "SELECT 1 FROM operation_logs WHERE action = 'record' AND resource_type = 'usage' "
                "AND username = 'omar' AND metadata @> "
                """'{"accepted": 1, "rejected": 1, "stream_event": "closed"}'"""
            )
        )

    assert await poll_until(closing_record)
