"""Containers for the tests of the adapter."""

from __future__ import annotations

from typing import Any

from pilothouse_server.containers.model import Container
from pilothouse_server.values.resources import ContainerId, NamespaceId


def container(**fields: Any) -> Container:
    """The smallest container, and what is said of it."""
    return Container(
        **{
            "id": ContainerId(1),
            "uid": "1b2c3d4e-0000-4000-8000-000000000001",
            "name": "web",
            "namespace_id": NamespaceId(1),
            "namespace": "shop",
            "cluster_name": "local",
            "kubernetes_namespace": "shop",
            "kubernetes_name": "web",
            "image": "nginx:1.27",
            **fields,
        }
    )
