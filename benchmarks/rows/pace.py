"""Row 14 and the row `objects`: the time until new containers and objects exist in the cluster.

Row 14: containers created through the API until their Deployments exist, against a bare client that applies the
Deployments. Row `objects`: the same for carried objects, and for objects whose calls had ended before the reconciler
started on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.child import Child
from benchmarks.loads.pace import CALLERS
from benchmarks.measure import Figure, Pairs, Run, Series, compared
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient

_NAMESPACES = [f"pace-{number}" for number in range(CALLERS)]
# Room for all pods: a hundred per node, as on real nodes.
_PODS_OF_A_NODE = 100
# A thousand containers if other rows use five thousand pods, fewer in short runs.
_SHARE = 5
_GOAL = 1.5
_POLL_SECONDS = 0.1
_LIMIT_SECONDS = 60.0
# Makes the reconciler ignore objects until `_NOW` runs.
_LATER = """
CREATE TRIGGER later BEFORE INSERT OR UPDATE ON reconcile_work FOR EACH ROW WHEN (NEW.resource_type = 'object')
EXECUTE FUNCTION never_due()
"""
_NOW = """
DROP TRIGGER later ON reconcile_work;
UPDATE reconcile_work SET due_at = clock_timestamp() WHERE resource_type = 'object'
"""


async def deployments(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures Deployments alone, then with a Service each; each run has a new server and a new cluster."""
    for load, also in (("deployments", ""), ("services", ", a Service each")):
        about = f"containers made by {CALLERS} callers{also}: until their Deployments exist"
        yield await _measured(testbed, "14", load, about)


async def objects(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures carried objects (NetworkPolicies) until the cluster has them: stored before, then with their calls."""
    about = "carried objects that are wanted: until they exist"
    yield await _measured(testbed, "objects", "objects", about, wanted=True)
    about = f"carried objects made by {CALLERS} callers: until they exist"
    yield await _measured(testbed, "objects", "objects", about)


async def _measured(testbed: Testbed, row: str, load: str, about: str, *, wanted: bool = False) -> Figure:
    values, bases, answered = [], [], []
    for number in range(testbed.scale.bring_ups):
        bases.append(Run(await _bare(testbed, load)))
        file = testbed.directory / f"kubeconfig_pace_{load}_{wanted}_{number}.json"
        run, seconds = await _product(testbed, load, file, wanted=wanted)
        values.append(run)
        answered.append(seconds)
    return compared(
        row,
        f"{_count(testbed):,} {about}",
        "s",
        Pairs(Series(tuple(values)), Series(tuple(bases))),
        "bare client",
        ("≤", _GOAL),
        notes=(
            f"medians of {testbed.scale.bring_ups}, each on a new cluster; the calls were answered after "
            f"{median(answered):.1f} s",
            "both wait for the simulated cluster, which shares a core with PostgreSQL and the one who asks",
        ),
    )


async def _bare(testbed: Testbed, load: str) -> float:
    async with testbed.children(
        ("loads.cluster", testbed.cores.asking), ("baselines.applying", testbed.cores.serving)
    ) as (cluster, bare):
        kubeconfig = await cluster.ask("start", nodes=_nodes(testbed))
        await bare.ask("prepare", kubeconfig=kubeconfig, namespaces=_NAMESPACES)
        seconds: float = await bare.ask(
            "apply",
            kubeconfig=kubeconfig,
            namespaces=_NAMESPACES,
            count=_count(testbed),
            concurrency=CALLERS,
            load=load,
        )
        return seconds


async def _product(testbed: Testbed, load: str, file: Path, *, wanted: bool) -> tuple[Run, float]:
    """Returns the run until the objects exist, and the seconds until the calls had returned.

    If `wanted` is set, all objects but one are created before, and the run starts with the call for the last one.
    """
    async with (
        testbed.database(reconciled=True) as database,
        testbed.children(("loads.cluster", testbed.cores.asking), ("loads.pace", testbed.cores.asking)) as (
            cluster,
            callers,
        ),
    ):
        kubeconfig = await cluster.ask("start", nodes=_nodes(testbed))
        await asyncio.to_thread(file.write_bytes, orjson.dumps(kubeconfig))
        async with testbed.product(database, kubeconfig=file) as product:
            client = await product.administrator()
            try:
                await _prepare(client)
            finally:
                await client.close()
            asked = {
                "address": product.address,
                "token": await product.token(),
                "kubeconfig": kubeconfig,
                "namespaces": _NAMESPACES,
                "numbers": (0, _count(testbed)),
                "awaited": _count(testbed),
                "load": load,
            }
            if wanted:
                asked |= await _make_all_but_one(callers, database, asked)
            made = asyncio.ensure_future(callers.ask("create", **asked))
            run = await testbed.metered(product.process_id, database, made, "there")
            return run, made.result()["answered"]


async def _make_all_but_one(callers: Child, database: Database, asked: dict[str, Any]) -> dict[str, Any]:
    """Creates objects that the reconciler finds together; returns the changed arguments of the last one's call."""
    most = asked["awaited"]
    async with connected(database.superuser) as connection:
        await connection.execute(_LATER)
        made = await callers.ask("create", **{**asked, "numbers": (0, most - 1), "awaited": 0})
        await connection.execute(_NOW)
    # The reconciler may start before the last call.
    return {"numbers": (most - 1, most), "since": made["version"]}


async def _prepare(client: AsyncClient) -> None:
    """Creates the namespaces, and waits until the cluster has them."""
    quota = namespace_pb2.ResourceQuota(containers=1_000_000)
    for name in _NAMESPACES:
        await client.namespaces.create(namespace=namespace_pb2.Namespace(name=name, resource_quota=quota))
    async with asyncio.timeout(_LIMIT_SECONDS):
        while True:
            seen = [await client.namespaces.get(name=name) for name in _NAMESPACES]
            if not any(namespace.reconciling for namespace in seen):
                return
            await asyncio.sleep(_POLL_SECONDS)


def _count(testbed: Testbed) -> int:
    return testbed.scale.pods // _SHARE


def _nodes(testbed: Testbed) -> int:
    return 1 + _count(testbed) // _PODS_OF_A_NODE
