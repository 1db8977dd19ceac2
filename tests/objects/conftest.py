"""One server with a cluster for all tests here; each test has its own namespace."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import NotFoundError
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import ResourceType
from tests.harness import Server
from tests.waiting import poll_until

JsonObject = dict[str, Any]
ACCOUNT: JsonObject = {"api_version": "v1", "kind": "ServiceAccount"}
INGRESS: JsonObject = {"api_version": "networking.k8s.io/v1", "kind": "Ingress"}
POLICY: JsonObject = {"api_version": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
BUDGET: JsonObject = {"api_version": "policy/v1", "kind": "PodDisruptionBudget"}

_numbers = count(1)


def budget(**spec: Any) -> JsonObject:
    """Returns the document of a PodDisruptionBudget."""
    return {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}, **spec}}


def ingress(place: Place, service: str = "web", **spec: Any) -> JsonObject:
    """Returns the document of an Ingress that leads to a Service."""
    host = f"web.{place.name}.example.com"
    backend = {"service": {"name": service, "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {"spec": {"rules": [{"host": host, "http": {"paths": paths}}], **spec}}


class Place:
    """A namespace on the server, and its objects on the cluster."""

    def __init__(self, server: Server, cluster: SimulatedCluster, name: str) -> None:
        self.server = server
        self.client: AsyncClient = server.admin
        self.store = cluster.store
        self.cluster = cluster
        self.name = name

    async def run(self, name: str, **fields: Any) -> None:
        """Makes a container with the label `app` of its name, and a Service in front of it."""
        container = container_pb2.Container(name=name, image="nginx:1.27", labels={"app": name}, **fields)
        await self.client.containers.create(namespace=self.name, container=container)
        service = network_pb2.Service(
            name=name, selector={"app": name}, ports=[network_pb2.ServicePort(port=80)]
        )
        await self.client.network.create_service(namespace=self.name, service=service)

    def by_hand(self, resource: ResourceType, name: str = "web", **parts: Any) -> None:
        """Changes parts of the object on the cluster, such as fields of `spec`, as kubectl does."""
        changed = copy_json(self.on_cluster(resource, name))
        for key, value in parts.items():
            if isinstance(changed.get(key), dict):
                changed[key] = {**changed[key], **value}
            else:
                changed[key] = value
        self.store.update(resource, changed, manager="kubectl-edit")

    async def make(
        self, kind: JsonObject, document: JsonObject, name: str = "web", **fields: Any
    ) -> pb.Object:
        """Makes an object of a kind with a document."""
        carried = pb.Object(name=name, document=json.dumps(document), **kind, **fields)
        return await self.client.objects.create(namespace=self.name, object=carried)

    async def get(self, kind: JsonObject, name: str = "web", **fields: Any) -> pb.Object:
        """Returns the object as it is now."""
        return await self.client.objects.get(namespace=self.name, name=name, **kind, **fields)

    async def change(self, kind: JsonObject, name: str = "web", **fields: Any) -> pb.Object:
        """Changes these fields."""
        if isinstance(fields.get("document"), dict):
            fields["document"] = json.dumps(fields["document"])
        return await self.client.objects.update(
            namespace=self.name,
            name=name,
            **kind,
            object=pb.Object(**fields),
            update_mask=FieldMask(paths=list(fields)),
        )

    async def delete(self, kind: JsonObject, name: str = "web") -> None:
        """Deletes the object."""
        await self.client.objects.delete(namespace=self.name, name=name, **kind)

    async def until(
        self, condition: Callable[[pb.Object], bool], kind: JsonObject, name: str = "web"
    ) -> pb.Object:
        """Waits until the condition is true of the object, and returns it."""

        async def holds() -> pb.Object | None:
            found = await self.get(kind, name)
            return found if condition(found) else None

        found = await poll_until(holds, what=f"what was expected of {kind['kind']} {name}")
        assert found is not None
        return found

    async def settled(self, kind: JsonObject, name: str = "web") -> pb.Object:
        """Waits until the desired object is on the cluster, and returns the object."""
        return await self.until(
            lambda each: not each.reconciling and each.status == pb.OBJECT_STATUS_ACTIVE, kind, name
        )

    async def gone(self, kind: JsonObject, name: str = "web") -> None:
        """Waits until the object is deleted."""

        async def missing() -> bool:
            try:
                await self.get(kind, name)
            except NotFoundError:
                return True
            return False

        await poll_until(missing, what=f"the end of {kind['kind']} {name}")

    def on_cluster(self, resource: ResourceType, name: str = "web") -> JsonObject:
        """Returns the object on the cluster."""
        found = self.store.get(resource, self.name, name)
        assert found is not None, f"there is no {resource.kind} {name}"
        return found

    async def seen(
        self, resource: ResourceType, condition: Callable[[JsonObject], bool], name: str = "web"
    ) -> JsonObject:
        """Waits until the condition is true of the object on the cluster, and returns it."""

        async def holds() -> JsonObject | None:
            found = self.store.get(resource, self.name, name)
            return found if found is not None and condition(found) else None

        found = await poll_until(holds, what=f"what was expected of {resource.kind} {name} on the cluster")
        assert found is not None
        return found


def condition_of(carried: pb.Object, kind: str = "Applied") -> resource_pb2.Condition | None:
    """Returns the condition of this type of an object, or None."""
    return next((each for each in carried.conditions if each.type == kind), None)


@pytest_asyncio.fixture(loop_scope="session")
async def place(shared_server: Server) -> Place:
    """Returns a new namespace that is active on the cluster."""
    name = f"obj-{next(_numbers)}"
    namespace = namespace_pb2.Namespace(name=name, allowed_hosts=[f"*.{name}.example.com"])
    await shared_server.admin.namespaces.create(namespace=namespace)

    async def there() -> bool:
        found = await shared_server.admin.namespaces.get(name=name)
        return found.phase == "Active"

    await poll_until(there, what="the namespace on the cluster")
    assert shared_server.cluster is not None
    return Place(shared_server, shared_server.cluster, name)
