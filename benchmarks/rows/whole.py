"""Row 7 for a whole server, and row `kinds`.

Row 7: a server that starts 5,000 pods, and a server that finds them and writes their statuses. Row `kinds`: the same
with 1,000 finished runs of Jobs and 200 StatefulSets.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson

from benchmarks.machine import pin
from benchmarks.measure import Figure
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient

_REPLICAS = 10
# A hundred pods per node, as on real nodes.
_NODES = 50
# Few, because the row measures the pods, not concurrent calls.
_AT_ONCE = 4
_POLL_SECONDS = 0.25
_LIMIT_SECONDS = 600.0
_LONGEST_HOLD_MILLISECONDS = 20.0
_NAMESPACE = "whole"

# Resets the database as if nothing had been observed: every status, pod and line of history must be written again.
_UNSEEN = """
UPDATE containers SET status = 'pending', phase = NULL, ready_replicas = 0, observed_replicas = 0,
    pod_name = NULL, pod_ip = NULL, host_ip = NULL, started_at = NULL, conditions = '[]'::jsonb;
DELETE FROM container_pods;
DELETE FROM container_runs;
"""
_SEEN = "SELECT count(*) FROM container_pods WHERE ready"
# One finished run for every five pods of row 7, and one StatefulSet for every five runs.
_PODS_OF_A_RUN, _RUNS_OF_A_SET = 5, 5
_KINDS_SEEN = """
SELECT (SELECT count(*) FROM container_runs WHERE status = 'succeeded')
    + (SELECT count(*) FROM containers WHERE spec #>> '{workload,type}' = 'stateful_set' AND status = 'running')
"""
_ENDS = {"simulate.pilothouse.dev/behavior": "exit:0"}


async def whole_server(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures a server that starts the pods, then a server that is started after them."""
    pods = testbed.scale.pods
    given = _Load(
        "7",
        f"{pods:,} pods of {pods // _REPLICAS} containers",
        f"the statuses of {pods:,} pods",
        [_web(number) for number in range(pods // _REPLICAS)],
        _SEEN,
        pods,
    )
    async for figure in _both(testbed, given):
        yield figure


async def other_kinds(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the same with Jobs that end, and with StatefulSets."""
    runs = testbed.scale.pods // _PODS_OF_A_RUN
    sets = runs // _RUNS_OF_A_SET
    what = f"{runs:,} finished runs of Jobs and {sets} StatefulSets"
    containers = [*map(_set, range(sets)), *map(_job, range(runs))]
    async for figure in _both(testbed, _Load("kinds", what, what, containers, _KINDS_SEEN, runs + sets)):
        yield figure


@dataclass(frozen=True, slots=True)
class _Load:
    """The containers of a row. `seen` is a query that returns `count` once all of them are observed."""

    row: str
    brought_up: str
    written: str
    containers: Sequence[pb.Container]
    seen: str
    count: int


async def _both(testbed: Testbed, load: _Load) -> AsyncIterator[Figure]:
    # This process itself makes the calls, and must not use the server's core.
    pin(os.getpid(), testbed.cores.asking)
    async with (
        testbed.database(reconciled=True) as database,
        testbed.children(("loads.cluster", testbed.cores.asking)) as (cluster,),
    ):
        kubeconfig = testbed.directory / "kubeconfig_whole.json"
        await asyncio.to_thread(
            kubeconfig.write_bytes, orjson.dumps(await cluster.ask("start", nodes=_NODES))
        )
        held_bringing_up = testbed.directory / "held_bringing_up"
        async with _watched(testbed, database, kubeconfig, held_bringing_up) as product:
            client = await product.administrator()
            try:
                brought_up = await _bring_up(client, database, load)
            finally:
                await client.close()
        seconds, files = [], []
        for number in range(testbed.scale.bring_ups):
            async with connected(database.superuser) as connection:
                await connection.execute(_UNSEEN)
            file = testbed.directory / f"held_{number}"
            async with _watched(testbed, database, kubeconfig, file) as product:
                await _all_seen(database, load)
                seconds.append(time.monotonic() - product.spawned)
            files.append(file)
    yield Figure(
        load.row,
        f"{load.brought_up}, from the first call until all are there",
        "s",
        brought_up,
        notes=("the simulated cluster, which has a core with PostgreSQL, takes most of it",),
    )
    yield _hold(load.row, "longest that bringing them up held the server's event loop", [held_bringing_up])
    yield Figure(
        load.row,
        f"start of a server until it has written {load.written}",
        "s",
        median(seconds),
        notes=(
            f"medians of {testbed.scale.bring_ups}; the database had forgotten all statuses, pods and runs",
        ),
    )
    yield _hold(load.row, "longest that this held its event loop", files)


def _hold(row: str, what: str, files: Sequence[Path]) -> Figure:
    holds, works = zip(*(map(float, file.read_text().split()) for file in files), strict=True)
    return Figure(
        row,
        what,
        "ms",
        median(holds),
        goal=("≤", _LONGEST_HOLD_MILLISECONDS),
        goal_of="value",
        notes=(f"of that the loop's own work: at most {median(works):.1f} ms at a time",),
    )


@asynccontextmanager
async def _watched(
    testbed: Testbed, database: Database, kubeconfig: Path, file: Path
) -> AsyncIterator[Product]:
    program = (sys.executable, "-m", "benchmarks.held", str(file), "serve")
    async with testbed.product(database, kubeconfig=kubeconfig, program=program) as product:
        yield product


def _web(number: int) -> pb.Container:
    return pb.Container(
        name=f"web-{number}",
        image="nginx:1.27",
        replicas=_REPLICAS,
        ports=[pb.Port(name="http", container_port=80)],
        resources=pb.Resources(cpu_request="1m", memory_request="1Mi"),
    )


def _set(number: int) -> pb.Container:
    return pb.Container(
        name=f"set-{number}",
        image="nginx:1.27",
        ports=[pb.Port(name="http", container_port=80, service_type=pb.SERVICE_TYPE_HEADLESS)],
        stateful_set=pb.StatefulSetSettings(),
    )


def _job(number: int) -> pb.Container:
    return pb.Container(
        name=f"job-{number}",
        image="busybox:1.37",
        pod_annotations=_ENDS,
        job=pb.JobSettings(backoff_limit=0),
    )


async def _bring_up(client: AsyncClient, database: Database, load: _Load) -> float:
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=_NAMESPACE))
    containers = iter(load.containers)
    began = time.monotonic()

    async def create() -> None:
        for container in containers:
            await client.containers.create(namespace=_NAMESPACE, container=container)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(create())
    await _all_seen(database, load)
    return time.monotonic() - began


async def _all_seen(database: Database, load: _Load) -> None:
    async with asyncio.timeout(_LIMIT_SECONDS), connected(database.superuser) as connection:
        # There is no notification, so the table is polled.
        while await connection.fetchval(load.seen) < load.count:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
