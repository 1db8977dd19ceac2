"""An existing Kubernetes namespace for tests of the import: its objects are made without the platform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from tests.harness import Server
from tests.waiting import poll_until

# `Kubectl` replaces `legacy` with the namespace of the test.
DEPLOYMENTS = "/apis/apps/v1/namespaces/legacy/deployments"
SERVICES = "/api/v1/namespaces/legacy/services"
PODS = "/api/v1/namespaces/legacy/pods"


class Kubectl:
    """A person who works on the cluster without the platform."""

    def __init__(self, server: Server) -> None:
        assert server.cluster is not None
        token = server.cluster.kubeconfig()["users"][0]["user"]["token"]
        self._headers = {"Authorization": f"Bearer {token}"}
        self._url = server.cluster.url
        self._legacy = server.legacy

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "json"
    ) -> Any:
        """Sends one request that must succeed."""
        headers = self._headers | {"Content-Type": f"application/{kind}"}
        path = path.replace("/namespaces/legacy/", f"/namespaces/{self._legacy}/")
        data = None if body is None else json.dumps(body)
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, self._url + path + "?fieldManager=kubectl", data=data) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async def pods(self) -> dict[str, str]:
        """Returns the name and uid of every pod that is not being deleted."""
        items = (await self.ask("GET", PODS))["items"]
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"]
            for pod in items
            if "deletionTimestamp" not in pod["metadata"]
        }


def deployment(name: str, *, image: str = "nginx", replicas: int = 2, **pod: Any) -> dict[str, Any]:
    """Returns a Deployment as a person writes it: no image tag, a named port, a probe, a literal and a reference."""
    labels = {"app": name, "app.kubernetes.io/managed-by": "Helm"}
    main = {
        "name": "server",
        "image": image,
        "env": [
            {"name": "MODE", "value": "fast"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels, "annotations": {"owner": "team-a"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels | {"tier": "front"}},
                "spec": {"containers": [main], "terminationGracePeriodSeconds": 5, **pod},
            },
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": "http", "name": "web"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


async def legacy(server: Server) -> Kubectl:
    """Makes a Kubernetes namespace and a namespace of the platform that adopts it."""
    kubectl = Kubectl(server)
    await kubectl.ask(
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": server.legacy}},
    )
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.legacy), adopt=True)
    return kubectl


async def running(server: Server, name: str) -> pb.Container:
    async def look() -> pb.Container | None:
        found = await server.admin.containers.get(namespace=server.legacy, name=name)
        done = found.status == pb.CONTAINER_STATUS_RUNNING and not found.reconciling
        return found if done else None

    found = await poll_until(look)
    assert found is not None
    return found


async def all_run(kubectl: Kubectl, name: str, replicas: int) -> None:
    async def ready() -> bool:
        found = await kubectl.ask("GET", f"{DEPLOYMENTS}/{name}")
        return bool(found["status"].get("readyReplicas") == replicas)

    await poll_until(ready)


def condition(container: pb.Container, type_: str) -> Any:
    return next(item for item in container.conditions if item.type == type_)
