"""One server with a cluster for all tests here; each test has its own namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest_asyncio

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, SECRETS, Manifest
from tests.harness import Server
from tests.waiting import poll_until

_numbers = count(1)


class Place:
    """A namespace on the server, and its objects on the cluster."""

    def __init__(self, server: Server, cluster: ClusterClient, name: str) -> None:
        self.server = server
        self.client: AsyncClient = server.admin
        self.cluster = cluster
        self.name = name

    async def secret_on_cluster(self, name: str) -> Manifest | None:
        """Returns the whole Secret, or None."""
        return await self._on_cluster(name, secret=True)

    async def config_map_on_cluster(self, name: str) -> Manifest | None:
        """Returns the whole ConfigMap, or None."""
        return await self._on_cluster(name, secret=False)

    async def _on_cluster(self, name: str, *, secret: bool) -> Manifest | None:
        resource = SECRETS if secret else CONFIG_MAPS
        try:
            return await self.cluster.read(resource, self.name, name)
        except NotFound:
            return None

    async def applied(self, *names: str) -> None:
        """Waits until these config maps and secrets are applied to the cluster."""

        async def settled() -> bool:
            config = self.client.config
            waiting = [
                item.name async for item in config.list_config_maps(namespace=self.name) if item.reconciling
            ]
            waiting += [
                item.name async for item in config.list_secrets(namespace=self.name) if item.reconciling
            ]
            return not set(waiting) & set(names)

        await poll_until(settled, what=f"{names} applied")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_cluster(shared_server: Server) -> AsyncIterator[ClusterClient]:
    assert shared_server.cluster is not None
    client = await ClusterClient.from_kubeconfig(shared_server.cluster.kubeconfig(), name="test")
    yield client
    await client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def place(shared_server: Server, shared_cluster: ClusterClient) -> Place:
    """Returns a new namespace that is active on the cluster."""
    name = f"space-{next(_numbers)}"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))

    async def there() -> bool:
        found = await shared_server.admin.namespaces.get(name=name)
        return found.phase == "Active"

    await poll_until(there, what="the namespace on the cluster")
    return Place(shared_server, shared_cluster, name)
