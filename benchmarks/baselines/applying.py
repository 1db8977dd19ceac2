"""Applies objects to a cluster with bare HTTP, several in parallel: the time of a client that does nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson

from benchmarks.child import answering
from benchmarks.loads import arrivals

_LIMIT_SECONDS = 300.0
_QUERY = {"fieldManager": "bare", "force": "false"}
# The NetworkPolicy that the product applies in the same run.
POLICY: dict[str, Any] = {
    "podSelector": {"matchLabels": {"app": "made"}},
    "policyTypes": ["Ingress"],
    "ingress": [
        {
            "from": [{"podSelector": {"matchLabels": {"app": "front"}}}],
            "ports": [{"port": 8080, "protocol": "TCP"}],
        }
    ],
}
_APPLY = {"Content-Type": "application/apply-patch+yaml"}


async def prepare(kubeconfig: dict[str, Any], namespaces: list[str]) -> None:
    """Creates the namespaces."""
    async with arrivals.session(kubeconfig) as cluster:
        for name in namespaces:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            async with cluster.post("/api/v1/namespaces", json=body) as answer:
                answer.raise_for_status()


async def apply(
    kubeconfig: dict[str, Any], namespaces: list[str], count: int, concurrency: int, load: str
) -> float:
    """Applies `count` objects of the kind of `load`; returns the seconds until a watch has reported them all."""
    async with arrivals.session(kubeconfig) as cluster, asyncio.timeout(_LIMIT_SECONDS):
        seen = asyncio.create_task(
            arrivals.arrived(cluster, load, await arrivals.version(cluster, load), count)
        )
        wanted = iter(range(count))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(_one_client(cluster, namespaces, wanted, load))
        return await seen - began


async def _one_client(
    cluster: aiohttp.ClientSession, namespaces: list[str], wanted: Iterator[int], load: str
) -> None:
    for number in wanted:
        namespace, name = namespaces[number % len(namespaces)], f"made-{number}"
        where = f"namespaces/{namespace}"
        if load == "objects":
            path = f"/apis/networking.k8s.io/v1/{where}/networkpolicies/{name}"
            await _apply(cluster, path, _policy(namespace, name))
            continue
        if load == "services":
            await _apply(cluster, f"/api/v1/{where}/services/{name}", _service(namespace, name))
        await _apply(cluster, f"/apis/apps/v1/{where}/deployments/{name}", _deployment(namespace, name))


async def _apply(cluster: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    async with cluster.patch(path, params=_QUERY, headers=_APPLY, data=orjson.dumps(body)) as answer:
        answer.raise_for_status()
        await answer.read()


def _labels(namespace: str, name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/managed-by": "bare",
        "bare.example.org/namespace": namespace,
        "bare.example.org/uid": f"6f9619ff-8b86-4011-b42d-{abs(hash(name)) % 10**12:012}",
        "app": "made",
    }


def _deployment(namespace: str, name: str) -> dict[str, Any]:
    labels = _labels(namespace, name)
    container = {
        "name": name,
        "image": "nginx:1.27",
        "env": [
            {"name": "FIRST", "value": "a value of some length"},
            {"name": "SECOND", "value": "a value of some length"},
        ],
        "resources": {
            "requests": {"cpu": "1m", "memory": "1Mi"},
            "limits": {"cpu": "500m", "memory": "256Mi"},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _service(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": _labels(namespace, name)},
        "spec": {
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    }


def _policy(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": _labels(namespace, name)},
        "spec": POLICY,
    }


def main() -> None:
    """Runs the process."""
    answering({"prepare": prepare, "apply": apply})


if __name__ == "__main__":
    main()
