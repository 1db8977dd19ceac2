"""Row 7, the first list of a cluster; and a hundred containers that are started on a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.measure import Figure, Pairs, Run, Series, compared, in_turns
from benchmarks.testbed import Testbed
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient

_SELECTOR = "app.kubernetes.io/managed-by=pilothouse"
_LONGEST_HOLD_MILLISECONDS = 20.0
_GOAL_SECONDS = 15.0
_POLL_SECONDS = 0.1
_LIMIT_SECONDS = 120.0
_NAMESPACE = "hundred"
# The namespace of the bare Deployments, which the cluster of the measurement creates.
_BARE_NAMESPACE = "measured"


async def observation(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 7: the time until all pods are known, and how long the event loop was blocked during it."""
    holds: list[float] = []
    pods = testbed.scale.observed_pods
    async with testbed.children(
        ("loads.cluster", testbed.cores.asking),
        ("loads.observation", testbed.cores.serving),
        ("baselines.kubernetes", testbed.cores.serving),
    ) as (cluster, observer, bare):
        kubeconfig = await cluster.ask("start", pods=pods)

        async def observed() -> float:
            seconds, seen, held = await observer.ask("observe", kubeconfig=kubeconfig)
            _check(seen, pods)
            holds.append(held)
            return float(seconds)

        async def listed() -> float:
            seconds, seen = await bare.ask("list_pods", kubeconfig=kubeconfig, selector=_SELECTOR)
            _check(seen, pods)
            return float(seconds)

        pairs = await in_turns(observed, listed, testbed.scale.runs, warm=testbed.scale.warm)
    notes = ("both wait for the same simulated cluster, whose own work is part of both times",)
    yield compared("7", f"first look at {pods:,} pods", "s", pairs, "HTTP + msgspec", ("≤", 2.0), notes=notes)
    yield Figure(
        "7",
        "longest that it held the event loop",
        "ms",
        median(holds[-testbed.scale.runs :]),
        goal=("≤", _LONGEST_HOLD_MILLISECONDS),
        goal_of="value",
    )


def _check(seen: float, pods: int) -> None:
    if seen != pods:
        raise RuntimeError(f"{seen} pods were seen, not {pods}")


async def hundred_containers(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the time until a hundred new containers run; each run has a new server and cluster."""
    values, bases = [], []
    containers = testbed.scale.brought_up
    for number in range(testbed.scale.bring_ups):
        bases.append(Run(await _bare_bring_up(testbed, containers)))
        values.append(
            Run(await _bring_up(testbed, testbed.directory / f"kubeconfig_{number}.json", containers))
        )
    yield compared(
        "containers",
        f"{containers} containers made by one client, until all run",
        "s",
        Pairs(Series(tuple(values)), Series(tuple(bases))),
        "bare Deployments",
        ("≤", _GOAL_SECONDS),
        goal_of="value",
        notes=(f"medians of {testbed.scale.bring_ups}; a container's Service is made in both",),
    )


async def _bare_bring_up(testbed: Testbed, containers: int) -> float:
    async with testbed.children(
        ("loads.cluster", testbed.cores.asking), ("baselines.kubernetes", testbed.cores.serving)
    ) as (cluster, bare):
        kubeconfig = await cluster.ask("start")
        seconds: float = await bare.ask(
            "deployments", kubeconfig=kubeconfig, namespace=_BARE_NAMESPACE, count=containers
        )
        return seconds


async def _bring_up(testbed: Testbed, file: Path, containers: int) -> float:
    async with (
        testbed.database(reconciled=True) as database,
        testbed.children(("loads.cluster", testbed.cores.asking)) as (cluster,),
    ):
        kubeconfig: dict[str, Any] = await cluster.ask("start")
        # A kubeconfig is YAML, and JSON is YAML.
        await asyncio.to_thread(file.write_bytes, orjson.dumps(kubeconfig))
        async with testbed.product(database, kubeconfig=file) as product:
            client = await product.administrator()
            try:
                async with asyncio.timeout(_LIMIT_SECONDS):
                    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=_NAMESPACE))
                    return await _until_all_run(client, containers)
            finally:
                await client.close()


async def _until_all_run(client: AsyncClient, containers: int) -> float:
    began = time.perf_counter()
    for number in range(containers):
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
        if len(running) >= containers:
            return time.perf_counter() - began
        await asyncio.sleep(_POLL_SECONDS)
