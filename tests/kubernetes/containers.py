"""Containers for the tests of the adapter."""

from __future__ import annotations

from typing import Any

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS
from pilothouse_server.values.resources import ContainerId, NamespaceId, NamespaceRef

SHOP = NamespaceRef(NamespaceId(1), "shop", "", "local", "shop")


def container(**fields: Any) -> Container:
    """Returns a minimal container with these fields."""
    return Container(
        **{
            "id": ContainerId(1),
            "uid": "1b2c3d4e-0000-4000-8000-000000000001",
            "name": "web",
            "namespace_ref": SHOP,
            "kubernetes_name": "web",
            "image": "nginx:1.27",
            **fields,
        }
    )


async def replicas_of(client: ClusterClient) -> int:
    """Returns the desired replicas of the minimal container's Deployment."""
    return int((await client.read(DEPLOYMENTS, "shop", "web"))["spec"]["replicas"])
