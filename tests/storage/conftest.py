"""One server with a cluster for all tests here; each test has its own namespace."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client import AsyncClient
from pilothouse_client.errors import NotFoundError
from pilothouse_simulator import SimulatedCluster
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

    async def make(self, name: str = "data", **fields: Any) -> pb.Volume:
        """Makes a volume, by default a claim of 1Gi."""
        if "type" not in fields:
            fields = {"type": pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, "size": "1Gi", **fields}
        volume = pb.Volume(name=name, **fields)
        return await self.client.storage.create_volume(namespace=self.name, volume=volume)

    async def get(self, name: str = "data") -> pb.Volume:
        """Returns the volume as it is now."""
        return await self.client.storage.get_volume(namespace=self.name, name=name)

    async def resize(self, size: str, name: str = "data") -> pb.Volume:
        """Requests another size."""
        return await self.client.storage.update_volume(
            namespace=self.name,
            name=name,
            volume=pb.Volume(size=size),
            update_mask=FieldMask(paths=["size"]),
        )

    async def run(self, *mounts: container_pb2.VolumeMount, name: str = "web", **fields: Any) -> None:
        """Makes a container."""
        container = container_pb2.Container(name=name, image="nginx:1.27", volume_mounts=mounts, **fields)
        await self.client.containers.create(namespace=self.name, container=container)

    async def volume(self, condition: Callable[[pb.Volume], bool], name: str = "data") -> pb.Volume:
        """Waits until the condition is true of the volume, and returns it."""

        async def holds() -> pb.Volume | None:
            found = await self.get(name)
            return found if condition(found) else None

        found = await poll_until(holds, what=f"what was expected of volume {name}")
        assert found is not None
        return found

    async def container(
        self, condition: Callable[[container_pb2.Container], bool], name: str = "web"
    ) -> container_pb2.Container:
        """Waits until the condition is true of the container, and returns it."""

        async def holds() -> container_pb2.Container | None:
            found = await self.client.containers.get(namespace=self.name, name=name)
            return found if condition(found) else None

        found = await poll_until(holds, what=f"what was expected of {name}")
        assert found is not None
        return found

    async def running(self, name: str = "web") -> container_pb2.Container:
        """Waits until the container runs in its desired state, and returns it."""
        return await self.container(
            lambda each: each.status == container_pb2.CONTAINER_STATUS_RUNNING and not each.reconciling, name
        )

    async def gone(self, name: str = "data") -> None:
        """Waits until the volume is deleted."""

        async def missing() -> bool:
            try:
                await self.get(name)
            except NotFoundError:
                return True
            return False

        await poll_until(missing, what=f"the end of volume {name}")

    def pod_volumes(self, resource: Any, name: str = "web") -> dict[str, JsonObject]:
        """Returns the volumes in the pod template of a container's Deployment, by name."""
        found = self.store.get(resource, self.name, name)
        assert found is not None
        volumes = found["spec"]["template"]["spec"].get("volumes") or []
        return {volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in volumes}


def applied(volume: pb.Volume, kind: str = "Applied") -> resource_pb2.Condition | None:
    """Returns the condition of this type of a volume, or None."""
    return next((each for each in volume.conditions if each.type == kind), None)


def mount(volume: str = "data", path: str = "/data", **fields: Any) -> container_pb2.VolumeMount:
    """Returns a mount of a container."""
    return container_pb2.VolumeMount(volume=volume, mount_path=path, **fields)


@pytest_asyncio.fixture(loop_scope="session")
async def place(shared_server: Server) -> Place:
    """Returns a new namespace that is active on the cluster."""
    name = f"stock-{next(_numbers)}"
    # The Pod Security level of new namespaces does not allow host paths.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name, labels=labels))

    async def there() -> bool:
        found = await shared_server.admin.namespaces.get(name=name)
        return found.phase == "Active"

    await poll_until(there, what="the namespace on the cluster")
    assert shared_server.cluster is not None
    return Place(shared_server, shared_server.cluster, name)
