"""Rows 4 and 5: events to many watchers, and how long one change takes to reach all of them."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson

from benchmarks.baselines import etcd
from benchmarks.baselines.grpc_server import STREAM
from benchmarks.child import Child
from benchmarks.measure import Figure, Goal, Pairs, Run, Series, all_in_turns, compared, in_turns
from benchmarks.population import WATCHED
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.container.v1 import container_pb2 as pb

METHOD = "/pilothouse.container.v1.ContainerService/WatchContainers"
_REQUEST = b64encode(pb.WatchContainersRequest(namespace=WATCHED).SerializeToString()).decode()
# The number of deliveries in a run, by the number of watchers: enough for a second or two.
_DELIVERIES = {10: 20_000, 100: 30_000, 1_000: 20_000}
LATENCY_WATCHERS = 100
_LATENCY_PAUSE = 0.01
_API_SERVER_MILLISECONDS = 17.0
_EVENT = """
SELECT resource_type, resource_id, namespace_id, resource_name, message, labels, status FROM events
WHERE resource_type = 'container' AND resource_name = $1 ORDER BY revision LIMIT 1
"""
_PUT = "SELECT put_changes('[]', '{}', $1::jsonb, $2::bytea[])"
_SEQUENCE = "SELECT count(*) FROM sequence_changes()"
_NUMBERED_SECONDS = 10.0


async def fan_out(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 4 at each number of watchers."""
    for watchers in testbed.scale.watchers:
        yield await _fan_out(testbed, watchers)


async def _fan_out(testbed: Testbed, watchers: int) -> Figure:
    events = max(1, int(_DELIVERIES[watchers] * min(1.0, testbed.scale.seconds)) // watchers)
    async with (
        testbed.database() as database,
        testbed.product(database) as product,
        testbed.children(
            ("baselines.grpc_server", testbed.cores.serving),
            ("loads.watches", testbed.cores.asking),
            ("loads.watches", testbed.cores.asking),
        ) as (bare, watches, bare_watches),
        connected(database.system) as connection,
    ):
        token = await product.tenant_token()
        await make_watched(product)
        changes, messages = await repeated_event(database, events)
        await open_watches(watches, product, token, watchers)

        async def delivered() -> dict[str, float]:
            await watches.ask("expect", events=events)
            await connection.execute(_PUT, changes, messages)
            began = time.monotonic()
            # The time includes numbering the events, as for every change.
            await connection.execute(_SEQUENCE)
            return _rate(events * watchers, await watches.ask("finished") - began)

        await delivered()
        message = await watches.ask("last_event")
        address = await bare.ask("start")
        await bare_watches.ask("open", address=address, method=STREAM, request="", watchers=watchers)

        async def delivered_bare() -> dict[str, float]:
            await bare_watches.ask("expect", events=events)
            began: float = await bare.ask("send", message=message, count=events)
            return _rate(events * watchers, await bare_watches.ask("finished") - began)

        pairs = await in_turns(
            lambda: testbed.metered(product.process_id, database, delivered()),
            lambda: testbed.metered(bare.process_id, None, delivered_bare()),
            testbed.scale.runs,
            warm=testbed.scale.warm,
        )
    return compared(
        "4",
        f"events delivered to {watchers:,} watchers, {events:,} events at once",
        "/s",
        pairs,
        "bare streams",
        ("≥", 0.8),
        notes=("CPU is that of one event to one watcher",),
    )


def _rate(deliveries: int, seconds: float) -> dict[str, float]:
    return {"rate": deliveries / seconds, "calls": deliveries}


async def make_watched(product: Product) -> None:
    """Creates the container of the watched namespace, of usual size."""
    client = await product.administrator()
    try:
        container = pb.Container(
            name=WATCHED,
            image="image-1:1.0",
            env=[pb.EnvVar(name="FIRST", value="a value of some length")],
            ports=[pb.Port(name="http", container_port=8080)],
            resources=pb.Resources(cpu_request="100m", memory_request="128Mi"),
            labels={"app": "watched"},
        )
        await client.containers.create(namespace=WATCHED, container=container)
    finally:
        await client.close()


async def open_watches(watches: Child, product: Product, token: str, watchers: int) -> None:
    """Opens a child's streams on the watched namespace."""
    await watches.ask(
        "open", address=product.address, method=METHOD, request=_REQUEST, watchers=watchers, token=token
    )


async def repeated_event(database: Database, events: int) -> tuple[str, list[bytes]]:
    """Returns the event of the container's creation, `events` times, in the form that `put_changes` takes."""
    async with connected(database.superuser) as connection, asyncio.timeout(_NUMBERED_SECONDS):
        # The event is numbered a moment after the response, and this process gets no notification.
        while (event := await connection.fetchrow(_EVENT, WATCHED)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return orjson.dumps([_change(event)] * events).decode(), [bytes(event["message"])] * events


def _change(event: asyncpg.Record) -> dict[str, Any]:
    return {
        **{name: value for name, value in event.items() if name not in ("message", "labels")},
        "kind": "modified",
        "labels": orjson.loads(event["labels"]),
    }


async def latency(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 5: from the commit of a change to its delivery, against etcd from put to watch."""
    async with (
        testbed.database() as database,
        testbed.product(database) as product,
        testbed.children(("loads.watches", testbed.cores.asking)) as (watches,),
    ):
        changes = await Changes.made(testbed, product, database, watches)
        if not etcd.installed():
            (_,) = await all_in_turns((changes.run,), testbed.scale.runs, warm=testbed.scale.warm)
            yield Figure("5", _WHAT, reason="etcd is not installed (Debian: apt-get install etcd-server)")
        else:
            async for figure in _beside_etcd(testbed, changes):
                yield figure
    yield Figure(
        "5",
        f"{_WHAT}, beside a Kubernetes API server",
        "ms",
        changes.series("sent").value,
        goal=("≤", _API_SERVER_MILLISECONDS),
        goal_of="value",
        notes=("17 ms are what an API server was measured to take; it does not run in here",),
    )


_WHAT = f"change to delivery, p99 of {LATENCY_WATCHERS} watchers, one writer"


class Changes:
    """An arm whose runs have two figures: from the response to the writer, and from the writer's request."""

    def __init__(self, testbed: Testbed, process_id: int, database: Database | None) -> None:
        self._testbed = testbed
        self._process_id = process_id
        self._database = database
        self._ask: Any = None
        self._said: list[dict[str, float]] = []

    @classmethod
    async def made(cls, testbed: Testbed, product: Product, database: Database, watches: Child) -> Changes:
        """Returns the arm of the product, with its watchers."""
        arm = cls(testbed, product.process_id, database)
        token = await product.tenant_token()
        await make_watched(product)
        await open_watches(watches, product, token, LATENCY_WATCHERS)
        where = {"address": product.address, "token": token, "namespace": WATCHED, "name": WATCHED}
        arm._ask = lambda: watches.ask("latencies_of_changes", **where, **_pace(testbed))
        return arm

    @classmethod
    async def of_etcd(cls, testbed: Testbed, process_id: int, address: str, watches: Child) -> Changes:
        """Returns the arm of etcd, with its watchers."""
        arm = cls(testbed, process_id, None)
        await watches.ask(
            "open",
            address=address,
            method=etcd.WATCH,
            request=b64encode(etcd.watch_request(etcd.KEY)).decode(),
            watchers=LATENCY_WATCHERS,
            etcd=True,
        )
        arm._ask = lambda: watches.ask("latencies_of_puts", address=address, **_pace(testbed))
        return arm

    async def run(self) -> Run:
        """Measures one run; its figure counts from the response to the writer."""
        return await self._testbed.metered(self._process_id, self._database, self._measured(), "answered")

    async def _measured(self) -> dict[str, float]:
        self._said.append(await self._ask())
        return self._said[-1]

    def series(self, clock: str) -> Series:
        """Returns the runs that counted, by one of the clocks: `answered` or `sent`."""
        return Series(tuple(Run(said[clock]) for said in self._said[-self._testbed.scale.runs :]))


def _pace(testbed: Testbed) -> dict[str, float]:
    return {"events": max(20, int(testbed.scale.seconds / _LATENCY_PAUSE)), "pause": _LATENCY_PAUSE}


async def _beside_etcd(testbed: Testbed, changes: Changes) -> AsyncIterator[Figure]:
    async with (
        etcd.running(testbed.directory / "etcd", testbed.cores.serving) as (address, process_id),
        testbed.children(("loads.watches", testbed.cores.asking)) as (watches,),
    ):
        puts = await Changes.of_etcd(testbed, process_id, address, watches)
        pairs = await in_turns(changes.run, puts.run, testbed.scale.runs, warm=testbed.scale.warm)
    notes = ("CPU is that of one change to all watchers",)
    name = "etcd put to watch"
    goal: Goal = ("≤", 2.0)
    yield compared("5", f"{_WHAT}, from its answer", "ms", pairs, name, goal, notes=notes)
    pairs = Pairs(changes.series("sent"), puts.series("sent"))
    yield compared("5", f"{_WHAT}, from its send", "ms", pairs, name, goal)
