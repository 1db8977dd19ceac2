"""One server with a cluster for all tests of a module in this directory; each test has its own namespace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest_asyncio
from tests.harness import Server

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.transport import AsyncTransport
from pilothouse_simulator import SimulatedCluster

JsonObject = dict[str, Any]
_numbers = count(1)


def config_map(name: str = "settings", **data: str) -> JsonObject:
    """Returns the document of a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": data or {"level": "info"},
    }


def secret(name: str = "password", **data: str) -> JsonObject:
    """Returns the document of a Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": data or {"word": "canary"},
    }


def deployment(name: str = "web", image: str = "nginx:1.27", **spec: Any) -> JsonObject:
    """Returns the document of a Deployment."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
            **spec,
        },
    }


def service(name: str = "web") -> JsonObject:
    """Returns the document of a Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }


def claim(name: str = "data") -> JsonObject:
    """Returns the document of a PersistentVolumeClaim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def budget(name: str = "web") -> JsonObject:
    """Returns the document of a PodDisruptionBudget."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": name}}},
    }


def shop() -> list[JsonObject]:
    """Returns the documents of an application with an object of each noun."""
    return [config_map(), secret(), claim(), service(), budget(), deployment()]


def given(documents: Sequence[JsonObject]) -> list[pb.ApplicationDocument]:
    """Returns documents as a request contains them."""
    return [
        pb.ApplicationDocument(json=json.dumps(each), source=f"shop.yaml:{number}")
        for number, each in enumerate(documents)
    ]


def actions(changes: Sequence[pb.ApplicationChange]) -> dict[str, str]:
    """Returns the actions of changes, by kind and name."""
    return {
        f"{each.kind}/{each.name}": pb.ChangeAction.Name(each.action).removeprefix("CHANGE_ACTION_").lower()
        for each in changes
    }


class Place:
    """A namespace on the server."""

    def __init__(self, server: Server, cluster: SimulatedCluster, name: str) -> None:
        self.server = server
        self.client: Nouns[AsyncTransport] = server.admin
        self.cluster = cluster
        self.name = name

    async def apply(
        self,
        documents: Sequence[JsonObject],
        name: str = "shop",
        client: Nouns[AsyncTransport] | None = None,
        **fields: Any,
    ) -> pb.ApplyApplicationResponse:
        """Applies documents as an application."""
        return await (client or self.client).applications.apply(
            namespace=self.name, name=name, documents=given(documents), **fields
        )

    async def get(self, name: str = "shop") -> pb.Application:
        """Returns the application."""
        return await self.client.applications.get(namespace=self.name, name=name)


@pytest_asyncio.fixture(loop_scope="session")
async def place(shared_server: Server) -> Place:
    """Creates a namespace."""
    name = f"app-{next(_numbers)}"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    assert shared_server.cluster is not None
    return Place(shared_server, shared_server.cluster, name)
