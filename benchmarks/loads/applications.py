"""The same containers, created by one ApplyApplication, or by several CreateContainer calls in parallel."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc.aio

from benchmarks.child import answering
from pilothouse.application.v1 import application_pb2
from pilothouse.container.v1 import container_pb2 as pb

_APPLY = "/pilothouse.application.v1.ApplicationService/ApplyApplication"
_CREATE = "/pilothouse.container.v1.ContainerService/CreateContainer"
_ENV = ("FIRST", "SECOND")
_VALUE = "a value of some length"
_REQUESTED, _LIMITS = {"cpu": "100m", "memory": "128Mi"}, {"cpu": "500m", "memory": "256Mi"}
_LABELS = {"app": "made"}


async def apply(address: str, token: str, namespace: str, name: str, count: int) -> dict[str, float]:
    """Creates `count` containers in one call; returns the `seconds`, and the number of `calls` to compare it with."""
    request = application_pb2.ApplyApplicationRequest(
        namespace=namespace,
        name=name,
        documents=[
            application_pb2.ApplicationDocument(json=json.dumps(_deployment(f"{name}-{number}")))
            for number in range(count)
        ],
        request_id=str(uuid4()),
    )
    sent = request.SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_APPLY)
        began = time.perf_counter()
        await call(sent, metadata=(("authorization", f"Bearer {token}"),))
        return {"seconds": time.perf_counter() - began, "calls": count}


async def apply_each_second(
    address: str, token: str, namespaces: list[str], name: str, count: int, seconds: float
) -> int:
    """Applies an application each second, or when the previous one is done; returns the number of applications."""
    began, made = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        await apply(address, token, namespaces[made % len(namespaces)], f"{name}-{made}", count)
        made += 1
        await asyncio.sleep(max(0.0, min(began + made, began + seconds) - time.perf_counter()))
    return made


async def create(
    address: str, token: str, namespace: str, name: str, count: int, concurrency: int
) -> dict[str, float]:
    """Creates the same containers with a call for each."""
    requests = iter([_request(namespace, f"{name}-{number}") for number in range(count)])
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CREATE)

        async def one_caller(waiting: Iterator[bytes]) -> None:
            for sent in waiting:
                await call(sent, metadata=(("authorization", f"Bearer {token}"),))

        began = time.perf_counter()
        await asyncio.gather(*(one_caller(requests) for _ in range(concurrency)))
        return {"seconds": time.perf_counter() - began, "calls": count}


def _deployment(name: str) -> dict[str, Any]:
    container = {
        "name": name,
        "image": "image-1:1.0",
        "env": [{"name": each, "value": _VALUE} for each in _ENV],
        "resources": {"requests": _REQUESTED, "limits": _LIMITS},
    }
    selected = {"run": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": _LABELS},
        "spec": {
            "selector": {"matchLabels": selected},
            "template": {"metadata": {"labels": selected}, "spec": {"containers": [container]}},
        },
    }


def _request(namespace: str, name: str) -> bytes:
    container = pb.Container(
        name=name,
        image="image-1:1.0",
        env=[pb.EnvVar(name=each, value=_VALUE) for each in _ENV],
        resources=pb.Resources(
            cpu_request=_REQUESTED["cpu"],
            cpu_limit=_LIMITS["cpu"],
            memory_request=_REQUESTED["memory"],
            memory_limit=_LIMITS["memory"],
        ),
        labels=_LABELS,
    )
    return pb.CreateContainerRequest(
        namespace=namespace, container=container, request_id=str(uuid4())
    ).SerializeToString()


def main() -> None:
    """Runs the process."""
    answering({"apply": apply, "apply_each_second": apply_each_second, "create": create})


if __name__ == "__main__":
    main()
