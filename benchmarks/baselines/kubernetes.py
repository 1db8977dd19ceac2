"""The same requests to a cluster with bare HTTP: a list of pods, decoded with msgspec, and new Deployments."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import aiohttp
import msgspec

from benchmarks.child import answering

_POLL_SECONDS = 0.1
_LIMIT_SECONDS = 120.0


class Metadata(msgspec.Struct, rename="camel", gc=False):
    """The fields that are read of any object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    creation_timestamp: datetime | None = None


class ContainerStatus(msgspec.Struct, rename="camel", gc=False):
    """The status of a pod's container."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    image: str = ""


class Condition(msgspec.Struct, rename="camel", gc=False):
    """A condition of a pod."""

    type: str = ""
    status: str = ""


class PodStatus(msgspec.Struct, rename="camel", gc=False):
    """The status of a pod."""

    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    start_time: datetime | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []


class Pod(msgspec.Struct, rename="camel", gc=False):
    """A pod."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Pods(msgspec.Struct, gc=False):
    """A list of pods."""

    items: list[Pod]


_DECODER = msgspec.json.Decoder(Pods)


def _session(kubeconfig: dict[str, Any]) -> aiohttp.ClientSession:
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    token = kubeconfig["users"][0]["user"]["token"]
    return aiohttp.ClientSession(server, headers={"Authorization": f"Bearer {token}"})


async def list_pods(kubeconfig: dict[str, Any], selector: str) -> list[float]:
    """Returns the seconds until all pods of one response are decoded, and the number of pods."""
    async with _session(kubeconfig) as session:
        began = time.perf_counter()
        async with session.get("/api/v1/pods", params={"labelSelector": selector}) as answer:
            answer.raise_for_status()
            pods = _DECODER.decode(await answer.read())
        return [time.perf_counter() - began, len(pods.items)]


async def deployments(kubeconfig: dict[str, Any], namespace: str, count: int) -> float:
    """Returns the seconds until `count` Deployments, each with a Service, are created in sequence, and all run."""
    async with _session(kubeconfig) as session, asyncio.timeout(_LIMIT_SECONDS):
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        began = time.perf_counter()
        for number in range(count):
            await _make(session, path, _deployment(f"web-{number}"))
            await _make(session, f"/api/v1/namespaces/{namespace}/services", _service(f"web-{number}"))
        while True:
            async with session.get(path) as answer:
                items = (await answer.json())["items"]
            if sum(item["status"].get("readyReplicas", 0) for item in items) >= count:
                return time.perf_counter() - began
            await asyncio.sleep(_POLL_SECONDS)


async def _make(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    async with session.post(path, json=body) as answer:
        answer.raise_for_status()
        await answer.read()


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    container = {
        "name": name,
        "image": "nginx:1.27",
        "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 80}]},
    }


def main() -> None:
    """Runs the process."""
    answering({"list_pods": list_pods, "deployments": deployments})


if __name__ == "__main__":
    main()
