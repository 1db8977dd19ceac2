"""Rows 10, 11 and 12: what a server costs before anybody asks it anything; and two of its processes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from base64 import b64encode
from collections.abc import AsyncIterator

from benchmarks.baselines.grpc_server import STREAM
from benchmarks.child import Child
from benchmarks.machine import proportional_bytes
from benchmarks.measure import Figure, in_turns
from benchmarks.population import WATCHED
from benchmarks.product import COMMAND
from benchmarks.rows import reading
from benchmarks.rows.watching import METHOD as WATCH
from benchmarks.world import Database, World
from pilothouse.container.v1 import container_pb2 as pb

_WATCHERS = 500
_SETTLE_SECONDS = 1.0
_REQUEST = b64encode(pb.WatchContainersRequest(namespace=WATCHED).SerializeToString()).decode()


async def processes(world: World) -> AsyncIterator[Figure]:
    """Row 10, where the command has the option and the client cores of its own."""
    what = "GetContainer by two server processes, beside one"
    shown = await asyncio.to_thread(
        subprocess.run, [*COMMAND, "--help"], capture_output=True, text=True, check=True
    )
    if "--processes" not in shown.stdout:
        yield Figure("10", what, reason="`pilothouse serve` has no option --processes")
        return
    cores = sorted(world.cores.serving | world.cores.asking | world.cores.database)
    if len(cores) < 4:
        yield Figure("10", what, reason=f"{len(cores)} cores: two servers would share theirs with the client")
        return
    two = frozenset(cores[:2])
    async with (
        world.database(1_000) as database,
        world.product(database) as one,
        world.product(database, arguments=("--processes", "2"), cores=two) as both,
        world.children(*((("loads.calls", frozenset(cores[2:])),) * 2)) as callers,
    ):
        tokens = {server.address: await server.token() for server in (one, both)}

        async def rate(address: str) -> float:
            rates = await asyncio.gather(
                *(
                    caller.ask(
                        "run",
                        address=address,
                        method=reading.METHOD,
                        requests=reading.encoded_requests(),
                        concurrency=16,
                        seconds=world.scale.seconds,
                        token=tokens[address],
                    )
                    for caller in callers
                )
            )
            return float(sum(rate["rate"] for rate in rates))

        pairs = await in_turns(lambda: rate(both.address), lambda: rate(one.address), world.scale.runs)
    yield Figure("10", what, "/s", pairs.value, pairs.base, "one process", pairs.spread, ("≥", 1.7))


async def memory(world: World) -> AsyncIterator[Figure]:
    """Row 11. Each process is begun anew for each run; how much it uses is read when it is quiet."""
    idle: list[tuple[float, float]] = []
    watcher: list[tuple[float, float]] = []
    async with world.database() as database:
        for _ in range(world.scale.bring_ups):
            mine = await _memory_of_product(world, database)
            bare = await _memory_of_bare(world)
            idle.append((mine[0], bare[0]))
            watcher.append((mine[1], bare[1]))
    for what, runs, goal, of in (
        ("memory of an idle server", idle, 2.0, "ratio"),
        (f"memory of an idle watcher, of {_WATCHERS}", watcher, 20.0, "difference"),
    ):
        values, bases = sorted(run[0] for run in runs), sorted(run[1] for run in runs)
        ratios = [value / base for value, base in runs]
        yield Figure(
            "11",
            what,
            "MB" if of == "ratio" else "KB",
            values[len(values) // 2],
            bases[len(bases) // 2],
            "empty grpc.aio" if of == "ratio" else "idle stream",
            (min(ratios), max(ratios)),
            ("≤", goal),
            goal_of="ratio" if of == "ratio" else "difference",
        )


async def _memory_of_product(world: World, database: Database) -> tuple[float, float]:
    async with (
        world.product(database) as product,
        world.children(("loads.watches", world.cores.asking)) as (watches,),
    ):
        return await _growth(product.process_id, watches, product.address, WATCH, await product.token())


async def _memory_of_bare(world: World) -> tuple[float, float]:
    async with world.children(
        ("baselines.grpc_server", world.cores.serving), ("loads.watches", world.cores.asking)
    ) as (bare, watches):
        return await _growth(bare.process_id, watches, await bare.ask("start"), STREAM, "")


async def _growth(
    process_id: int, watches: Child, address: str, method: str, token: str
) -> tuple[float, float]:
    """Megabytes of a quiet server, and kilobytes that each watcher adds."""
    await asyncio.sleep(_SETTLE_SECONDS)
    idle = proportional_bytes(process_id)
    await watches.ask(
        "open", address=address, method=method, request=_REQUEST, watchers=_WATCHERS, token=token
    )
    await asyncio.sleep(_SETTLE_SECONDS)
    watched = proportional_bytes(process_id)
    await watches.ask("close")
    return idle / 1e6, (watched - idle) / _WATCHERS / 1e3


async def start(world: World) -> AsyncIterator[Figure]:
    """Row 12: from the first instruction of the command to the first answer, with a database that is there."""
    async with (
        world.database(1_000) as database,
        world.children(
            ("baselines.grpc_server", world.cores.serving), ("loads.importing", world.cores.serving)
        ) as (bare, importing),
    ):
        async with world.product(database) as product:
            token = await product.tenant_token()
        echo = await bare.ask("start")

        async def started() -> float:
            async with world.product(database) as product:
                await reading.one_answer(product.address, token)
                return time.monotonic() - product.spawned

        async def connected() -> float:
            seconds: float = await importing.ask("connect", address=echo)
            return seconds

        pairs = await in_turns(started, connected, world.scale.runs)
    yield Figure(
        "12",
        "start to first answered call",
        "s",
        pairs.value,
        pairs.base,
        "import grpc, connect",
        pairs.spread,
        ("≤", 2.0),
        goal_of="value",
    )
