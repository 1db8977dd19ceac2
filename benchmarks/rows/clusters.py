"""Row 7, the first look at a cluster; and a hundred containers brought up on one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.measure import Figure, Pairs, in_turns
from benchmarks.world import World
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient

_PODS = 5_000
_SELECTOR = "app.kubernetes.io/managed-by=pilothouse"
_LONGEST_HOLD_MILLISECONDS = 20.0
_CONTAINERS = 100
_GOAL_SECONDS = 15.0
_POLL_SECONDS = 0.1
_LIMIT_SECONDS = 120.0
_NAMESPACE = "hundred"
# Where the bare Deployments go: the cluster of the measurement makes this namespace.
_BARE_NAMESPACE = "measured"


async def observation(world: World) -> AsyncIterator[Figure]:
    """Row 7: until all pods are known, and how long the event loop was held meanwhile."""
    holds: list[float] = []
    async with world.children(
        ("loads.cluster", world.cores.asking),
        ("loads.observation", world.cores.serving),
        ("baselines.kubernetes", world.cores.serving),
    ) as (cluster, observer, bare):
        kubeconfig = await cluster.ask("start", pods=_PODS)

        async def observed() -> float:
            seconds, pods, held = await observer.ask("observe", kubeconfig=kubeconfig)
            _check(pods)
            holds.append(held)
            return float(seconds)

        async def listed() -> float:
            seconds, pods = await bare.ask("list_pods", kubeconfig=kubeconfig, selector=_SELECTOR)
            _check(pods)
            return float(seconds)

        pairs = await in_turns(observed, listed, world.scale.runs)
    yield Figure(
        "7",
        f"first look at {_PODS:,} pods",
        "s",
        pairs.value,
        pairs.base,
        "HTTP + msgspec",
        pairs.spread,
        ("≤", 2.0),
        notes=("both wait for the same simulated cluster, whose own work is part of both times",),
    )
    yield Figure(
        "7",
        "longest that it held the event loop",
        "ms",
        median(holds[1:]),
        goal=("≤", _LONGEST_HOLD_MILLISECONDS),
        goal_of="value",
    )


def _check(pods: float) -> None:
    if pods != _PODS:
        raise RuntimeError(f"{pods} pods were seen, not {_PODS}")


async def hundred_containers(world: World) -> AsyncIterator[Figure]:
    """A hundred containers made by one client, until all run; each run on a server and a cluster of its own."""
    values, bases = [], []
    for number in range(world.scale.bring_ups):
        bases.append(await _bare_bring_up(world))
        values.append(await _bring_up(world, world.directory / f"kubeconfig_{number}.json"))
    pairs = Pairs(tuple(values), tuple(bases))
    yield Figure(
        "containers",
        f"{_CONTAINERS} containers made by one client, until all run",
        "s",
        pairs.value,
        pairs.base,
        "bare Deployments",
        pairs.spread,
        ("≤", _GOAL_SECONDS),
        goal_of="value",
        notes=(f"medians of {world.scale.bring_ups}; a container's Service is made in both",),
    )


async def _bare_bring_up(world: World) -> float:
    async with world.children(
        ("loads.cluster", world.cores.asking), ("baselines.kubernetes", world.cores.serving)
    ) as (cluster, bare):
        kubeconfig = await cluster.ask("start")
        seconds: float = await bare.ask(
            "deployments", kubeconfig=kubeconfig, namespace=_BARE_NAMESPACE, count=_CONTAINERS
        )
        return seconds


async def _bring_up(world: World, file: Path) -> float:
    async with (
        world.database(reconciled=True) as database,
        world.children(("loads.cluster", world.cores.asking)) as (cluster,),
    ):
        kubeconfig: dict[str, Any] = await cluster.ask("start")
        # JSON is YAML, which a kubeconfig is.
        await asyncio.to_thread(file.write_bytes, orjson.dumps(kubeconfig))
        async with world.product(database, kubeconfig=file) as product:
            client = await product.administrator()
            try:
                async with asyncio.timeout(_LIMIT_SECONDS):
                    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=_NAMESPACE))
                    return await _until_all_run(client)
            finally:
                await client.close()


async def _until_all_run(client: AsyncClient) -> float:
    began = time.perf_counter()
    for number in range(_CONTAINERS):
        container = pb.Container(
            name=f"web-{number}",
            image="nginx:1.27",
            ports=[pb.Port(name="http", container_port=80)],
            resources=pb.Resources(cpu_request="10m", memory_request="16Mi"),
        )
        await client.containers.create(namespace=_NAMESPACE, container=container)
    while True:
        running = [
            item async for item in client.containers.list(namespace=_NAMESPACE, filter="status = RUNNING")
        ]
        if len(running) >= _CONTAINERS:
            return time.perf_counter() - began
        await asyncio.sleep(_POLL_SECONDS)
