"""Calls: deadlines, retries, request ids, pages and errors. The blocking client behaves the same."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest

from pilothouse.container.v1.container_pb2 import Container
from pilothouse.metrics.v1.metrics_pb2 import RecordUsageRequest, UsageSample
from pilothouse.namespace.v1.namespace_pb2 import Namespace
from pilothouse_client import (
    AsyncClient,
    CancelledError,
    Client,
    Deadlines,
    InvalidArgumentError,
    NotFoundError,
    PilothouseError,
    ResourceExhaustedError,
    RetryPolicy,
    UnavailableError,
)
from tests.client.conftest import PASSWORD, QUICK
from tests.client.fake_server import FakeServer
from tests.waiting import Stopwatch, patient, runs_out


def _container(name: str) -> Container:
    return Container(name=name, image="nginx:1.27")


async def _fill(client: AsyncClient, count: int) -> None:
    for number in range(count):
        await client.containers.create(namespace="shop", container=_container(f"web-{number:02}"))


async def test_a_list_reads_all_pages(fake: FakeServer, client: AsyncClient) -> None:
    await _fill(client, 7)
    names = [container.name async for container in client.containers.list(namespace="shop", page_size=3)]
    assert names == [f"web-{number:02}" for number in range(7)]
    assert [call.request.page_token for call in fake.calls_of("ListContainers")] == ["", "3", "6"]


async def test_pages_are_fetched_on_demand(fake: FakeServer, client: AsyncClient) -> None:
    await _fill(client, 7)
    async for _ in client.containers.list(namespace="shop", page_size=3):
        break
    assert len(fake.calls_of("ListContainers")) == 1
    sizes = [len(page.containers) async for page in client.containers.list(page_size=3).pages()]
    assert sizes == [3, 3, 1]


async def test_a_mutation_whose_response_is_lost_happens_once(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail("CreateContainer", grpc.StatusCode.UNAVAILABLE, times=2, after_effect=True)
    made = await client.containers.create(namespace="shop", container=_container("web"))
    assert made.name == "web"
    identifiers = {call.request.request_id for call in fake.calls_of("CreateContainer")}
    assert len(fake.calls_of("CreateContainer")) == 3
    assert len(identifiers) == 1
    assert uuid.UUID(identifiers.pop()).version == 4
    assert len(fake.history) == 1


async def test_a_call_cancelled_by_a_stopping_server_is_retried(
    fake: FakeServer, client: AsyncClient
) -> None:
    fake.tables["namespace"]["shop"] = Namespace(name="shop")
    fake.fail("GetNamespace", grpc.StatusCode.CANCELLED)
    assert (await client.namespaces.get(name="shop")).name == "shop"
    fake.fail("CreateContainer", grpc.StatusCode.CANCELLED, after_effect=True)
    assert (await client.containers.create(namespace="shop", container=_container("web"))).name == "web"
    assert len(fake.history) == 1
    fake.fail("ChangePassword", grpc.StatusCode.CANCELLED, after_effect=True)
    with pytest.raises(CancelledError):
        await client.identity.change_password(current_password=PASSWORD, new_password="another password")
    assert len(fake.calls_of("ChangePassword")) == 1


async def test_the_callers_request_id_is_sent_unchanged(fake: FakeServer, client: AsyncClient) -> None:
    identifier = str(uuid.uuid4())
    await client.containers.create(namespace="shop", container=_container("web"), request_id=identifier)
    again = await client.containers.create(
        namespace="shop", container=_container("web"), request_id=identifier
    )
    assert again.name == "web"
    assert len(fake.history) == 1


async def test_a_call_without_a_request_id_is_not_retried(fake: FakeServer, client: AsyncClient) -> None:
    # ChangePassword has no request_id: a second call would fail, because the first has changed the password.
    fake.fail("ChangePassword", grpc.StatusCode.UNAVAILABLE, after_effect=True)
    with pytest.raises(UnavailableError):
        await client.identity.change_password(current_password=PASSWORD, new_password="another password")
    assert len(fake.calls_of("ChangePassword")) == 1


async def test_the_number_of_retries_is_limited(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail("GetContainer", grpc.StatusCode.UNAVAILABLE, times=50, reason="DATABASE_AWAY")
    with pytest.raises(UnavailableError) as caught:
        await client.containers.get(namespace="shop", name="web")
    assert caught.value.reason == "DATABASE_AWAY"
    assert len(fake.calls_of("GetContainer")) == QUICK.attempts


async def test_an_unavailable_cluster_is_reported_after_a_few_attempts(fake: FakeServer) -> None:
    """A cluster may be unavailable for days, so the client does not retry until its deadline."""
    fake.fail("CreateContainer", grpc.StatusCode.UNAVAILABLE, times=50, reason="CLUSTER_UNAVAILABLE")
    endless = RetryPolicy(initial_delay=0.001, greatest_delay=0.01)
    async with AsyncClient(
        fake.address, username="admin", password=PASSWORD, retry=endless
    ) as patient_client:
        with pytest.raises(UnavailableError) as caught:
            await patient_client.containers.create(
                namespace="shop", container=_container("web"), validate_only=True
            )
    assert caught.value.reason == "CLUSTER_UNAVAILABLE"
    assert len(fake.calls_of("CreateContainer")) == 3


async def test_retry_info_is_obeyed_if_the_deadline_allows(fake: FakeServer, client: AsyncClient) -> None:
    fake.tables["namespace"]["shop"] = Namespace(name="shop")
    fake.fail("GetNamespace", grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE", retry_delay=0.2)
    waited = Stopwatch()
    assert (await client.namespaces.get(name="shop")).name == "shop"
    assert waited.passed() >= 0.2
    fake.fail("GetNamespace", grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE", retry_delay=3600.0)
    with pytest.raises(ResourceExhaustedError) as caught:
        await client.namespaces.get(name="shop")
    assert caught.value.retry_delay == 3600.0


async def test_an_exceeded_quota_is_not_retried(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail(
        "CreateContainer",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="QUOTA_EXCEEDED",
        metadata={"limit": "3", "used": "3"},
    )
    with pytest.raises(ResourceExhaustedError) as caught:
        await client.containers.create(namespace="shop", container=_container("web"))
    assert caught.value.metadata == {"limit": "3", "used": "3"}
    assert len(fake.calls_of("CreateContainer")) == 1


async def test_errors_carry_reason_fields_and_operation(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail(
        "CreateContainer",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        violations=[("container.image", "not an image reference")],
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await client.containers.create(namespace="shop", container=_container("web"))
    error = caught.value
    assert [(violation.field, violation.description) for violation in error.violations] == [
        ("container.image", "not an image reference")
    ]
    assert error.from_server
    assert error.operation_id
    assert "container.image: not an image reference" in str(error)


async def test_every_kind_of_call_has_its_deadline(fake: FakeServer) -> None:
    deadlines = Deadlines(read=1000.0, mutation=2000.0, cluster=4000.0)
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, deadlines=deadlines) as client:
        _ = [each async for each in client.containers.list()]
        await client.containers.create(namespace="shop", container=_container("a"), validate_only=True)
        await client.containers.create(namespace="shop", container=_container("a"))
        await client.with_options(timeout=runs_out(500.0)).containers.get(namespace="shop", name="a")
    left = [call.time_left for call in fake.calls]
    # The login shares the deadline of the call that needs it.
    for seconds, upper in zip(left, [1000.0, 1000.0, 4000.0, 2000.0, 500.0], strict=True):
        assert seconds is not None
        assert upper / 2 < seconds < upper + 10.0  # gRPC rounds the deadline


async def test_a_stopped_server_is_reported_and_found_again_after_its_restart(fake: FakeServer) -> None:
    address = fake.address
    stubborn = RetryPolicy(attempts=1000, initial_delay=0.01, greatest_delay=0.05)
    async with AsyncClient(
        address, username="admin", password=PASSWORD, retry=stubborn, timeout=patient(20.0)
    ) as client:
        assert (await client.identity.who_am_i()).user.username == "admin"
        await fake.stop()
        with pytest.raises(UnavailableError) as caught:
            await client.with_options(retry=RetryPolicy(attempts=1)).identity.who_am_i()
        assert not caught.value.from_server
        waiting = asyncio.create_task(client.identity.who_am_i())
        await fake.start(address)
        assert (await waiting).user.username == "admin"


async def test_the_blocking_client_behaves_the_same(fake: FakeServer) -> None:
    def use() -> None:
        with Client(fake.address, username="admin", password=PASSWORD, retry=QUICK) as client:
            fake.fail("CreateContainer", grpc.StatusCode.UNAVAILABLE, after_effect=True)
            client.containers.create(namespace="shop", container=_container("web"))
            assert [each.name for each in client.containers.list(page_size=1)] == ["web"]
            assert [len(page.containers) for page in client.containers.list().pages()] == [1]
            with pytest.raises(NotFoundError) as caught:
                client.containers.get(namespace="shop", name="none")
            assert caught.value.reason == "NOT_FOUND"
            assert caught.value.metadata["name"] == "shop/none"
        with pytest.raises(PilothouseError):
            client.identity.who_am_i()

    await asyncio.to_thread(use)
    assert len(fake.calls_of("CreateContainer")) == 2
    assert len(fake.history) == 1


async def test_a_failed_upload_is_not_retried(fake: FakeServer, client: AsyncClient) -> None:
    sample = UsageSample(namespace="shop", container="web")
    requests = [RecordUsageRequest(samples=[sample] * count) for count in (1, 2, 3)]
    assert (await client.metrics.record_usage(requests)).accepted_count == 6
    fake.fail("RecordUsage", grpc.StatusCode.UNAVAILABLE, reason="DATABASE_AWAY")
    with pytest.raises(UnavailableError):
        await client.metrics.record_usage(requests)
    assert len(fake.calls_of("RecordUsage")) == 2

    def use() -> None:
        with Client(fake.address, username="admin", password=PASSWORD) as blocking:
            assert blocking.metrics.record_usage(iter(requests)).accepted_count == 6
            fake.fail("RecordUsage", grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE")
            with pytest.raises(ResourceExhaustedError):
                blocking.metrics.record_usage(requests)

    await asyncio.to_thread(use)
