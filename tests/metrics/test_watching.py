"""A stream of usage through the whole server: its beginning, its responses, and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from pilothouse.metrics.v1 import metrics_pb2 as pb
from tests.metrics.served import Served, measured, request
from tests.waiting import patient, poll_until, within


async def opened(served: Served, username: str, **fields: Any) -> Any:
    """Opens a stream."""
    stub, metadata = await served.stub(username)
    return stub.WatchUsage(pb.WatchUsageRequest(**fields), metadata=metadata, timeout=patient(30.0))


async def answers(call: Any) -> AsyncIterator[dict[str, datetime]]:
    """Yields its responses: namespace and container → time."""
    async for answer in call:
        yield {
            f"{sample.namespace}/{sample.container}": sample.timestamp.ToDatetime(tzinfo=UTC)
            for sample in answer.samples
        }


async def test_a_stream_begins_with_the_newest_samples_and_continues(served: Served) -> None:
    seen, unseen = await served.box("watched"), await served.box("guarded", "bank")
    now = datetime.now(UTC)
    before = now - timedelta(hours=20)
    await served.store(seen.sample(before - timedelta(minutes=1)), seen.sample(before), unseen.sample(before))
    call = await opened(served, "anna")
    stream = answers(call)
    first = await anext(stream)
    assert first["shop/watched"] == before
    assert not {name for name in first if name.startswith("bank/")}
    await served.store(unseen.sample(now), seen.sample(now))
    assert await anext(stream) == {"shop/watched": now}
    call.cancel()


async def test_a_sample_is_sent_as_it_was_stored(served: Served) -> None:
    box = await served.box("whole")
    call = await opened(served, "anna", namespace="shop", container="whole")
    assert not (await call.read()).samples
    await served.store(
        box.sample(
            datetime.now(UTC),
            cpu_cores_used=0.5,
            cpu_cores_limit=2.0,
            network_bytes_rx=7,
            disk_bytes_used=1,
            disk_bytes_total=4,
            programs='{"main": [0.25, 7], "log": [0.25, 9]}',
        )
    )
    (sample,) = (await call.read()).samples
    assert (sample.cpu_usage_percent, sample.disk_usage_percent, sample.network_bytes_rx) == (25, 25, 7)
    assert sample.programs == [
        pb.ProgramUsage(name="log", cpu_cores_used=0.25, memory_bytes_used=9),
        pb.ProgramUsage(name="main", cpu_cores_used=0.25, memory_bytes_used=7),
    ]
    assert not sample.HasField("memory_usage_percent")
    assert not sample.HasField("cpu_cores_request")
    call.cancel()


async def test_samples_that_others_record_are_sent(served: Served) -> None:
    await served.box("recorded")
    call = await opened(served, "anna", namespace="shop", container="recorded")
    stream = answers(call)
    assert await anext(stream) == {}
    await served.omar.metrics.record_usage([request(measured("recorded"))])
    assert list(await anext(stream)) == ["shop/recorded"]
    call.cancel()


async def test_a_hidden_namespace_is_not_found(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (await opened(served, "anna", namespace="bank")).read()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.full
async def test_a_revoked_grant_ends_what_it_showed(served: Served) -> None:
    await served.server.user("otto", {"shop": "viewer", "bank": "viewer"})
    shop, bank = await served.box("kept"), await served.box("lost", "bank")
    call = await opened(served, "otto")
    stream = answers(call)
    assert "bank/idle" not in await anext(stream)
    now = datetime.now(UTC)
    await served.store(shop.sample(now), bank.sample(now))
    assert await anext(stream) == {"shop/kept": now, "bank/lost": now}
    await served.admin.identity.revoke_role(username="otto", role="viewer", namespace="bank")

    async def shown() -> bool:
        now = datetime.now(UTC)
        await served.store(shop.sample(now), bank.sample(now))
        return await anext(stream) == {"shop/kept": now}

    await poll_until(shown, seconds=15.0)
    await served.admin.identity.revoke_role(username="otto", role="viewer", namespace="shop")

    async def to_the_end() -> None:
        async with within(15):
            async for _ in stream:
                pass

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await to_the_end()
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
