"""Rows 4 and 5: events to many watchers, and how long one event takes to all of them."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import AsyncIterator

import orjson

from benchmarks.baselines import etcd
from benchmarks.baselines.grpc_server import STREAM
from benchmarks.measure import Figure, in_turns
from benchmarks.population import WATCHED
from benchmarks.world import World, connected
from pilothouse.container.v1 import container_pb2 as pb

METHOD = "/pilothouse.container.v1.ContainerService/WatchContainers"
_REQUEST = b64encode(pb.WatchContainersRequest(namespace=WATCHED).SerializeToString()).decode()
# So many deliveries are a run, by the number of watchers: enough for a second or two.
_DELIVERIES = {10: 20_000, 100: 30_000, 1_000: 10_000}
_LATENCY_WATCHERS = 100
_LATENCY_PAUSE = 0.01
_API_SERVER_MILLISECONDS = 17.0


async def fan_out(world: World) -> AsyncIterator[Figure]:
    """Row 4, at each number of watchers."""
    for watchers in world.scale.watchers:
        yield await _fan_out(world, watchers)


async def _fan_out(world: World, watchers: int) -> Figure:
    events = max(1, _DELIVERIES[watchers] // watchers)
    async with (
        world.database() as database,
        world.product(database) as product,
        world.children(
            ("baselines.grpc_server", world.cores.serving),
            ("loads.watches", world.cores.asking),
            ("loads.watches", world.cores.asking),
        ) as (bare, watches, bare_watches),
        connected(database.system) as connection,
    ):
        namespace_id = await connection.fetchval("SELECT id FROM namespaces WHERE name = $1", WATCHED)
        changes = orjson.dumps([_change(namespace_id)] * events).decode()
        token = await product.tenant_token()
        await watches.ask(
            "open", address=product.address, method=METHOD, request=_REQUEST, watchers=watchers, token=token
        )

        async def deliver() -> float:
            await watches.ask("expect", events=events)
            began = time.monotonic()
            # Appending and committing are part of it, as they are of every change.
            await connection.execute("SELECT append_changes('[]', $1::jsonb)", changes)
            ended: float = await watches.ask("finished")
            return events * watchers / (ended - began)

        await deliver()
        message = await watches.ask("last_event")
        address = await bare.ask("start")
        await bare_watches.ask("open", address=address, method=STREAM, request="", watchers=watchers)

        async def deliver_bare() -> float:
            await bare_watches.ask("expect", events=events)
            began: float = await bare.ask("send", message=message, count=events)
            ended: float = await bare_watches.ask("finished")
            return events * watchers / (ended - began)

        pairs = await in_turns(deliver, deliver_bare, world.scale.runs)
    return Figure(
        "4",
        f"events delivered to {watchers:,} watchers, {events:,} events at once",
        "/s",
        pairs.value,
        pairs.base,
        "bare streams",
        pairs.spread,
        ("≥", 0.8),
    )


async def latency(world: World) -> AsyncIterator[Figure]:
    """Row 5: from the commit of one event to its delivery, beside etcd's from put to watch."""
    what = f"commit to delivery, p99 of {_LATENCY_WATCHERS} watchers"
    if not etcd.installed():
        yield Figure("5", what, reason="etcd is not installed (Debian: apt-get install etcd-server)")
        return
    events = max(20, int(world.scale.seconds * 50))
    async with (
        world.database() as database,
        world.product(database) as product,
        etcd.running(world.directory / "etcd", world.cores.serving) as etcd_address,
        world.children(("loads.watches", world.cores.asking), ("loads.watches", world.cores.asking)) as (
            watches,
            etcd_watches,
        ),
    ):
        async with connected(database.superuser) as connection:
            namespace_id = await connection.fetchval("SELECT id FROM namespaces WHERE name = $1", WATCHED)
        await watches.ask(
            "open",
            address=product.address,
            method=METHOD,
            request=_REQUEST,
            watchers=_LATENCY_WATCHERS,
            token=await product.tenant_token(),
        )
        await etcd_watches.ask(
            "open",
            address=etcd_address,
            method=etcd.WATCH,
            request=b64encode(etcd.watch_request(etcd.KEY)).decode(),
            watchers=_LATENCY_WATCHERS,
            etcd=True,
        )
        common = {"events": events, "pause": _LATENCY_PAUSE}
        pairs = await in_turns(
            lambda: watches.ask(
                "latencies_of_commits", dsn=database.system, namespace_id=namespace_id, **common
            ),
            lambda: etcd_watches.ask("latencies_of_puts", address=etcd_address, **common),
            world.scale.runs,
        )
    yield Figure("5", what, "ms", pairs.value, pairs.base, "etcd put to watch", pairs.spread, ("≤", 2.0))
    yield Figure(
        "5",
        f"{what}, beside a Kubernetes API server",
        "ms",
        pairs.value,
        goal=("≤", _API_SERVER_MILLISECONDS),
        goal_of="value",
        notes=("17 ms are what an API server was measured to take; it does not run in here",),
    )


def _change(namespace_id: int) -> dict[str, object]:
    """An event of a container as the database takes it, of usual size."""
    container = pb.Container(
        name="watched",
        namespace=WATCHED,
        image="image-1:1.0",
        env=[pb.EnvVar(name="FIRST", value="a value of some length")],
        ports=[pb.Port(name="http", container_port=8080, service_name="watched")],
        labels={"app": "watched"},
        message="x" * 100,
    )
    return {
        "resource_type": "container",
        "resource_id": 1,
        "namespace_id": namespace_id,
        "resource_name": "watched",
        "kind": "modified",
        "message": b64encode(container.SerializeToString()).decode(),
        "labels": {"app": "watched"},
        "status": "running",
    }
