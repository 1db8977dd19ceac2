"""The wait of `apply` until volumes, Services and objects are healthy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.client.fake_server import FakeServer
from tests.translator.manifests import NAMESPACE

from pilothouse.application.v1 import application_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import Client
from pilothouse_client.apply.object_waits import health_of, wait_for_objects

_REFUSED = resource_pb2.Condition(
    type="Applied", status=resource_pb2.CONDITION_STATUS_FALSE, message="no such class"
)


@pytest.mark.parametrize(
    ("resource", "state", "failed"),
    [
        (storage_pb2.Volume(status=storage_pb2.VOLUME_STATUS_BOUND), "healthy", False),
        (storage_pb2.Volume(reason="WaitForFirstConsumer"), "healthy", False),
        (storage_pb2.Volume(status=storage_pb2.VOLUME_STATUS_AVAILABLE), "progressing", False),
        (storage_pb2.Volume(status=storage_pb2.VOLUME_STATUS_FAILED), "degraded", False),
        (network_pb2.Service(status=network_pb2.SERVICE_STATUS_ACTIVE), "healthy", False),
        (network_pb2.Service(status=network_pb2.SERVICE_STATUS_PENDING), "progressing", False),
        (
            network_pb2.Service(status=network_pb2.SERVICE_STATUS_PENDING, reason="WaitingForLoadBalancer"),
            "healthy",
            False,
        ),
        (network_pb2.Service(generation=2, observed_generation=1), "progressing", False),
        (network_pb2.Service(conditions=[_REFUSED]), "degraded", True),
        (object_pb2.Object(health=object_pb2.OBJECT_HEALTH_UNKNOWN), "healthy", False),
        (object_pb2.Object(health=object_pb2.OBJECT_HEALTH_PROGRESSING), "progressing", False),
        (object_pb2.Object(health=object_pb2.OBJECT_HEALTH_DEGRADED), "degraded", False),
        (object_pb2.Object(generation=2, conditions=[_REFUSED]), "progressing", False),
    ],
)
def test_health_follows_the_rules_for_application_members(resource: Any, state: str, failed: bool) -> None:
    found = health_of(resource)
    assert (found.state, found.failed) == (state, failed)


def _change(kind: str, name: str) -> application_pb2.ApplicationChange:
    return application_pb2.ApplicationChange(
        kind=kind, name=name, action=application_pb2.CHANGE_ACTION_UNCHANGED
    )


async def test_the_wait_ends_when_all_objects_are_healthy(fake: FakeServer, client: Client) -> None:
    ingress = object_pb2.Object(
        namespace=NAMESPACE, kind="Ingress", name="front", health=object_pb2.OBJECT_HEALTH_PROGRESSING
    )
    service = network_pb2.Service(namespace=NAMESPACE, name="front", status=network_pb2.SERVICE_STATUS_ACTIVE)
    await fake.commit("object", (NAMESPACE, "front"), ingress)
    await fake.commit("service", (NAMESPACE, "front"), service)
    said: list[str] = []
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        said.append(line)
        if line == "ingress/front progressing":
            healthy = object_pb2.Object()
            healthy.CopyFrom(ingress)
            healthy.health = object_pb2.OBJECT_HEALTH_HEALTHY
            asyncio.run_coroutine_threadsafe(fake.commit("object", (NAMESPACE, "front"), healthy), loop)

    changes = [_change("Service", "front"), _change("ConfigMap", "a"), _change("Ingress", "front")]
    assert await asyncio.to_thread(wait_for_objects, client, NAMESPACE, changes, 30.0, say, said.append)
    assert said == ["service/front healthy", "ingress/front progressing", "ingress/front healthy"]


async def test_a_refusal_ends_the_wait_with_the_reason(fake: FakeServer, client: Client) -> None:
    refused = object_pb2.Object(namespace=NAMESPACE, kind="Ingress", name="front", conditions=[_REFUSED])
    await fake.commit("object", (NAMESPACE, "front"), refused)
    said: list[str] = []
    for name, line in (
        ("front", "  ingress/front degraded: the cluster refuses it: no such class"),
        ("nobody", "  ingress/nobody missing"),
    ):
        done = await asyncio.to_thread(
            wait_for_objects, client, NAMESPACE, [_change("Ingress", name)], 30.0, said.append, said.append
        )
        assert (done, said[-2:]) == (False, ["not all objects are healthy:", line])
