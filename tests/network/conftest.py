"""One server with a cluster for all tests here; each test has its own namespace."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import NotFoundError
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import SERVICES
from tests.harness import Server
from tests.waiting import poll_until

JsonObject = dict[str, Any]

_numbers = count(1)


class Place:
    """A namespace on the server, and its objects on the cluster."""

    def __init__(self, server: Server, cluster: SimulatedCluster, name: str) -> None:
        self.server = server
        self.client: AsyncClient = server.admin
        self.store = cluster.store
        self.cluster = cluster
        self.name = name

    async def make(self, name: str = "web", **fields: Any) -> pb.Service:
        """Makes a Service; by default for pods with the label app=web on port 80."""
        fields = {"selector": {"app": "web"}, "ports": [pb.ServicePort(port=80)], **fields}
        return await self.client.network.create_service(
            namespace=self.name, service=pb.Service(name=name, **fields)
        )

    async def get(self, name: str = "web") -> pb.Service:
        """Returns the Service as it is now."""
        return await self.client.network.get_service(namespace=self.name, name=name)

    async def change(self, name: str = "web", **fields: Any) -> pb.Service:
        """Changes these fields."""
        return await self.client.network.update_service(
            namespace=self.name,
            name=name,
            service=pb.Service(**fields),
            update_mask=FieldMask(paths=list(fields)),
        )

    async def run(self, name: str, *ports: container_pb2.Port, **fields: Any) -> container_pb2.Container:
        """Makes a container; it owns a Service only if ports are given."""
        container = container_pb2.Container(name=name, image="nginx:1.27", ports=ports, **fields)
        return await self.client.containers.create(namespace=self.name, container=container)

    async def service(self, condition: Callable[[pb.Service], bool], name: str = "web") -> pb.Service:
        """Waits until the condition is true of the Service, and returns it."""

        async def holds() -> pb.Service | None:
            found = await self.get(name)
            return found if condition(found) else None

        found = await poll_until(holds, what=f"what was expected of service {name}")
        assert found is not None
        return found

    async def settled(self, name: str = "web") -> pb.Service:
        """Waits until the desired Service is on the cluster, and returns it."""
        return await self.service(
            lambda each: not each.reconciling and each.status == pb.SERVICE_STATUS_ACTIVE, name
        )

    async def gone(self, name: str = "web") -> None:
        """Waits until the Service is deleted."""

        async def missing() -> bool:
            try:
                await self.get(name)
            except NotFoundError:
                return True
            return False

        await poll_until(missing, what=f"the end of service {name}")

    def on_cluster(self, name: str = "web") -> JsonObject:
        """Returns the object on the cluster."""
        found = self.store.get(SERVICES, self.name, name)
        assert found is not None, f"there is no Service {name}"
        return found

    async def seen(self, condition: Callable[[JsonObject], bool], name: str = "web") -> JsonObject:
        """Waits until the condition is true of the object on the cluster, and returns it."""

        async def holds() -> JsonObject | None:
            found = self.store.get(SERVICES, self.name, name)
            return found if found is not None and condition(found) else None

        found = await poll_until(holds, what=f"what was expected of Service {name} on the cluster")
        assert found is not None
        return found


def condition_of(service: pb.Service, kind: str = "Applied") -> resource_pb2.Condition | None:
    """Returns the condition of this type of a Service, or None."""
    return next((each for each in service.conditions if each.type == kind), None)


@pytest_asyncio.fixture(loop_scope="session")
async def place(shared_server: Server) -> Place:
    """Returns a new namespace that is active on the cluster."""
    name = f"net-{next(_numbers)}"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))

    async def there() -> bool:
        found = await shared_server.admin.namespaces.get(name=name)
        return found.phase == "Active"

    await poll_until(there, what="the namespace on the cluster")
    assert shared_server.cluster is not None
    return Place(shared_server, shared_server.cluster, name)
