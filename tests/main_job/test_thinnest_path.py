"""Login, namespace, running container, watch event and audit record, through the public interface alone."""

from __future__ import annotations

import asyncio

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.streams import ChangeKind
from tests.harness import Server
from tests.waiting import patient, poll_until


async def test_a_container_starts_and_is_watched_and_recorded(server: Server) -> None:
    admin = server.admin
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    statuses: list[int] = []
    synced = asyncio.Event()

    async def follow() -> None:
        async for change in admin.containers.watch(namespace="demo"):
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED):
                statuses.append(change.resource.status)
                if change.resource.status == container_pb2.CONTAINER_STATUS_RUNNING:
                    return

    watcher = asyncio.create_task(follow())
    await asyncio.wait_for(synced.wait(), patient(10))
    created = await admin.containers.create(
        namespace="demo",
        container=container_pb2.Container(
            name="web", image="nginx:1.27", ports=[container_pb2.Port(container_port=80)]
        ),
    )
    assert created.status == container_pb2.CONTAINER_STATUS_PENDING
    await asyncio.wait_for(watcher, patient(20))
    assert statuses[0] == container_pb2.CONTAINER_STATUS_PENDING
    # The observer writes the status, and the worker that the generation is applied, in either order.
    found = await poll_until(
        lambda: admin.containers.get(namespace="demo", name="web"), lambda seen: not seen.reconciling
    )
    assert found.ready_replicas == 1
    assert found.pod_ip
    assert found.observed_generation == found.generation

    async def recorded() -> list[str]:
        records = [item async for item in admin.audit.list_operations(filter='action = "create"')]
        return [f"{item.username} {item.resource_type} {item.resource_name}" for item in records]

    records = await poll_until(recorded)
    assert "admin container web" in records
    assert "admin namespace demo" in records
