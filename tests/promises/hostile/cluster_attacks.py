"""Attacks through third parties: calls that wait for a cluster, and kubeconfigs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import grpc.aio

from pilothouse.container.v1 import container_pb2, container_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2, namespace_pb2_grpc
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.hostile.attacker import Order, Report, run
from tests.waiting import patient, runs_out

_KIBIBYTE = 1024
# The largest kubeconfig that is parsed, and one that is too large. The concurrent calls alternate between them.
_SIZES = (60 * _KIBIBYTE, 250 * _KIBIBYTE)
_AT_ONCE = 8


async def _again_and_again(order: Order, at_once: int, call: Callable[[int], Awaitable[Any]]) -> Report:
    """Makes `at_once` concurrent calls, each followed by another, until the end.

    Returns how the calls ended.
    """
    ended: Counter[str] = Counter()

    async def one(number: int) -> None:
        while True:
            try:
                await call(number)
                ended["OK"] += 1
            except grpc.aio.AioRpcError as error:
                ended[error.code().name] += 1
                # Clients pause after a failure. Calls without a pause are another attack.
                with suppress(TimeoutError):
                    async with asyncio.timeout(runs_out(1.0)):
                        await order.over.wait()

    tasks = [asyncio.create_task(one(number)) for number in range(at_once)]
    order.begins()
    await order.over.wait()
    await cancel_and_wait(*tasks)
    return {"at_once": at_once, "ended": dict(ended)}


def _options(order: Order) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {order.token}"),), "timeout": patient(15.0)}


async def waits(order: Order) -> Report:
    """Makes dry runs of containers, which wait for the cluster, over and over."""
    async with (
        grpc.aio.insecure_channel(order.address) as first,
        grpc.aio.insecure_channel(order.address) as other,
    ):
        stubs: list[Any] = [container_pb2_grpc.ContainerServiceStub(channel) for channel in (first, other)]

        def call(number: int) -> Awaitable[Any]:
            wanted = container_pb2.Container(name=f"try-{number}", image="nginx:1.27")
            request = container_pb2.CreateContainerRequest(
                namespace=order.namespace, container=wanted, validate_only=True
            )
            return stubs[number % 2].CreateContainer(request, **_options(order))  # type: ignore[no-any-return]

        return await _again_and_again(order, order.count, call)


def _kubeconfig(size: int) -> str:
    """Returns a kubeconfig with very many entries of nested YAML."""
    entry = "- {name: n, cluster: {server: 'https://h', list: [a, [b, [c, {d: e}]]]}}\n"
    return "current-context: none\ncontexts: []\nclusters:\n" + entry * (size // len(entry))


async def kubeconfigs(order: Order) -> Report:
    """Registers clusters with large kubeconfigs."""
    texts = [_kubeconfig(size) for size in _SIZES]
    async with grpc.aio.insecure_channel(order.address) as channel:
        stub: Any = namespace_pb2_grpc.NamespaceServiceStub(channel)

        def call(number: int) -> Awaitable[Any]:
            kubeconfig = namespace_pb2.Kubeconfig(text=texts[number % len(texts)])
            request = namespace_pb2.RegisterClusterRequest(
                cluster=namespace_pb2.Cluster(name=f"c-{number}"),
                credentials=namespace_pb2.ClusterCredentials(kubeconfig=kubeconfig),
                request_id=str(uuid4()),
            )
            return stub.RegisterCluster(request, **_options(order))  # type: ignore[no-any-return]

        return await _again_and_again(order, order.count or _AT_ONCE, call)


if __name__ == "__main__":
    run({"waits": waits, "kubeconfigs": kubeconfigs})
