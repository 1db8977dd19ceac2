"""Containers or carried objects, created through the API by concurrent callers, until the cluster has all of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc.aio

from benchmarks.baselines.applying import POLICY
from benchmarks.child import answering
from benchmarks.loads import arrivals
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.object.v1 import object_pb2

CALLERS = 16
_LIMIT_SECONDS = 300.0
_CREATE = "/pilothouse.container.v1.ContainerService/CreateContainer"
_CREATE_OBJECT = "/pilothouse.object.v1.ObjectService/CreateObject"


async def create(
    address: str,
    token: str,
    kubeconfig: dict[str, Any],
    namespaces: list[str],
    numbers: tuple[int, int],
    awaited: int,
    load: str,
    since: float = 0,
) -> dict[str, float]:
    """Creates the objects with the `numbers` from the first to before the second, with 16 concurrent callers.

    Returns the seconds until all calls are `answered`, and until `awaited` objects are `there`, counted from the
    cluster's version `since`; `calls` is their number. `version` is the cluster's version after the calls.
    """
    async with (
        arrivals.session(kubeconfig) as cluster,
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(_LIMIT_SECONDS),
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            _CREATE_OBJECT if load == "objects" else _CREATE
        )
        began_at = str(int(since)) if since else await arrivals.version(cluster, load)
        seen = asyncio.create_task(arrivals.arrived(cluster, load, began_at, awaited))
        wanted = iter(range(*numbers))
        metadata = (("authorization", f"Bearer {token}"),)

        async def one_caller(left: Iterator[int]) -> None:
            for number in left:
                namespace = namespaces[number % len(namespaces)]
                name = f"made-{number}"
                request = _object(namespace, name) if load == "objects" else _request(namespace, name, load)
                await call(request, metadata=metadata)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(one_caller(wanted))
        answered, version = time.monotonic(), await arrivals.version(cluster, load)
        return {
            "answered": answered - began,
            "there": await seen - began,
            "calls": awaited,
            "version": float(version),
        }


def _object(namespace: str, name: str) -> bytes:
    carried = object_pb2.Object(
        name=name,
        api_version="networking.k8s.io/v1",
        kind="NetworkPolicy",
        labels={"app": "made"},
        document=json.dumps({"spec": POLICY}),
    )
    return object_pb2.CreateObjectRequest(
        namespace=namespace, object=carried, request_id=str(uuid4())
    ).SerializeToString()


def _request(namespace: str, name: str, load: str) -> bytes:
    container = pb.Container(
        name=name,
        image="nginx:1.27",
        env=[
            pb.EnvVar(name="FIRST", value="a value of some length"),
            pb.EnvVar(name="SECOND", value="a value of some length"),
        ],
        ports=[pb.Port(name="http", container_port=8080)] if load == "services" else [],
        resources=pb.Resources(
            cpu_request="1m", cpu_limit="500m", memory_request="1Mi", memory_limit="256Mi"
        ),
        labels={"app": "made"},
    )
    return pb.CreateContainerRequest(
        namespace=namespace, container=container, request_id=str(uuid4())
    ).SerializeToString()


def main() -> None:
    """Runs the process."""
    answering({"create": create})


if __name__ == "__main__":
    main()
