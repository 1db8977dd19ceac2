"""An in-memory server and a blocking client for each test, and the namespace that the tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from tests.client.fake_server import FakeServer
from tests.translator.manifests import NAMESPACE

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import Client, RetryPolicy

KEY = "pk-for-tests"
Settle = Callable[..., Awaitable[None]]


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    server.api_keys[KEY] = "admin"
    await server.start()
    await server.commit("namespace", NAMESPACE, namespace_pb2.Namespace(name=NAMESPACE))
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def client(fake: FakeServer) -> AsyncIterator[Client]:
    quick = RetryPolicy(initial_delay=0.001, greatest_delay=0.01)
    with Client(fake.address, token=KEY, retry=quick) as made:
        yield made


@pytest_asyncio.fixture
async def settle(fake: FakeServer) -> Settle:
    """Returns a function that sets the status of one container, or of all, as a reconciler would."""

    async def settled(
        name: str = "", status: pb.ContainerStatus.ValueType = pb.CONTAINER_STATUS_RUNNING, **observed: Any
    ) -> None:
        for key, row in list(fake.tables["container"].items()):
            if name in ("", key[1]) and isinstance(row, pb.Container):
                changed = pb.Container()
                changed.CopyFrom(row)
                changed.MergeFrom(pb.Container(status=status, **observed))
                del changed.conditions[:]
                if status == pb.CONTAINER_STATUS_RUNNING:
                    # Stable since 1970, because the transition time is not set.
                    changed.conditions.add(type="Stable", status=resource_pb2.CONDITION_STATUS_TRUE)
                elif status == pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF:
                    changed.conditions.add(
                        type="Stable",
                        status=resource_pb2.CONDITION_STATUS_FALSE,
                        reason="Restarted",
                        message=changed.message,
                    )
                changed.reconciling = False
                changed.observed_generation = changed.generation
                await fake.commit("container", key, changed)

    return settled
