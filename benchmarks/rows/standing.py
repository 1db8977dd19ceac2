"""Rows 10, 11 and 12: the cost of a server before its first call, and two server processes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import median

from benchmarks import processor
from benchmarks.baselines.grpc_server import STREAM
from benchmarks.child import Child
from benchmarks.machine import proportional_bytes
from benchmarks.measure import Figure, Run, compared, in_turns, server_cost
from benchmarks.population import WATCHED
from benchmarks.product import COMMAND, Product
from benchmarks.rows import reading
from benchmarks.rows.watching import METHOD as WATCH
from benchmarks.testbed import Database, Testbed
from pilothouse.container.v1 import container_pb2 as pb

# By then, the records of the opened watches are written.
_SETTLE_SECONDS = 2.0
_REQUEST = b64encode(pb.WatchContainersRequest(namespace=WATCHED).SerializeToString()).decode()
# The kernel gives each connection to one of the listening processes: with this number, every process gets some.
_CONNECTIONS = 16


async def processes(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 10: calls a second if the client has its own cores, otherwise CPU time per call."""
    what = "GetContainer by two server processes"
    shown = await asyncio.to_thread(
        subprocess.run, [*COMMAND, "--help"], capture_output=True, text=True, check=True
    )
    if "--processes" not in shown.stdout:
        yield Figure("10", what, reason="no such option: `pilothouse serve` has no --processes")
        return
    cores = sorted(testbed.cores.serving | testbed.cores.asking | testbed.cores.database)
    own = len(cores) >= 4
    # With too few cores, the server still gets two; the client and PostgreSQL share them.
    serving, asking = frozenset(cores[:2]), frozenset(cores[2:] if own else cores)
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.product(database, cores=serving) as one,
        testbed.product(database, arguments=("--processes", "2"), cores=serving) as both,
        testbed.children(*((("loads.calls", asking),) * 2)) as callers,
    ):
        token = await one.tenant_token()

        async def rate(server: Product) -> dict[str, float]:
            answers = await asyncio.gather(
                *(
                    caller.ask(
                        "run",
                        address=server.address,
                        method=reading.METHOD,
                        requests=reading.encoded_requests(),
                        concurrency=_CONNECTIONS,
                        connections=_CONNECTIONS,
                        seconds=testbed.scale.seconds,
                        token=token,
                    )
                    for caller in callers
                )
            )
            return {name: sum(answer[name] for answer in answers) for name in ("rate", "calls")}

        async def run(server: Product) -> Run:
            return await testbed.metered(server.process_id, database, rate(server))

        pairs = await in_turns(
            lambda: run(both), lambda: run(one), testbed.scale.runs, warm=testbed.scale.warm
        )
    if own:
        yield compared("10", what, "/s", pairs, "one process", ("≥", 1.7))
        return
    note = f"{len(cores)} cores: the client has none of its own, so the goal is processor time a call"
    yield compared("10", what, "/s", pairs, "one process", notes=(note,))
    yield server_cost("10", what, pairs, "one process", 1.1)


async def memory(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 11: memory and idle CPU time. Each run starts new processes, and reads them when they are idle."""
    mine: list[_Idle] = []
    bare: list[_Idle] = []
    watchers = testbed.scale.idle_watchers
    async with testbed.database() as database:
        # This start writes the bytecode for the measured ones.
        async with testbed.product(database):
            pass
        for _ in range(testbed.scale.bring_ups):
            mine.append(await _of_product(testbed, database))
            bare.append(await _of_bare(testbed))
    what = f"of {watchers} idle watchers"
    yield Figure(
        "11", "memory of an idle server", "MB", median(idle.megabytes for idle in mine),
        median(idle.megabytes for idle in bare), "empty grpc.aio", goal=("≤", 95.0), goal_of="value",
    )  # fmt: skip
    yield Figure(
        "11", f"memory of a watcher, {what}", "KB", median(idle.watcher_kilobytes for idle in mine),
        median(idle.watcher_kilobytes for idle in bare), "idle stream", goal=("≤", 20.0), goal_of="difference",
    )  # fmt: skip
    percent, watched = (median(idle.percent for idle in mine), median(idle.watched_percent for idle in mine))
    yield Figure(
        "11", "idle server with its PostgreSQL, of a core", "%", percent, goal=("≤", 0.3), goal_of="value",
        notes=(f"over {testbed.scale.idle_seconds:g} s, medians of {testbed.scale.bring_ups} servers",),
    )  # fmt: skip
    yield Figure(
        "11", f"the same {what}", "%", watched, percent, "without watchers", goal=("≤", 0.3), goal_of="difference"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Idle:
    """An idle server: its memory, the memory of each watcher, and its share of a core, without and with watchers."""

    megabytes: float
    watcher_kilobytes: float
    percent: float
    watched_percent: float


async def _of_product(testbed: Testbed, database: Database) -> _Idle:
    async with (
        testbed.product(database) as product,
        testbed.children(("loads.watches", testbed.cores.asking)) as (watches,),
    ):
        return await _idle(
            testbed, product.process_id, watches, product.address, WATCH, await product.token()
        )


async def _of_bare(testbed: Testbed) -> _Idle:
    async with testbed.children(
        ("baselines.grpc_server", testbed.cores.serving), ("loads.watches", testbed.cores.asking)
    ) as (bare, watches):
        return await _idle(testbed, bare.process_id, watches, await bare.ask("start"), STREAM, "")


async def _idle(
    testbed: Testbed, process_id: int, watches: Child, address: str, method: str, token: str
) -> _Idle:
    watchers = testbed.scale.idle_watchers
    await asyncio.sleep(_SETTLE_SECONDS)
    alone = proportional_bytes(process_id)
    counts = method == WATCH
    percent = await _percent(testbed, process_id) if counts else 0.0
    await watches.ask(
        "open", address=address, method=method, request=_REQUEST, watchers=watchers, token=token
    )
    await asyncio.sleep(_SETTLE_SECONDS)
    watched = proportional_bytes(process_id)
    watched_percent = await _percent(testbed, process_id) if counts else 0.0
    await watches.ask("close")
    return _Idle(alone / 1e6, (watched - alone) / watchers / 1e3, percent, watched_percent)


async def _percent(testbed: Testbed, process_id: int) -> float:
    """Returns the share of a core that the process and PostgreSQL use, in percent."""
    # Work that is done once after a start, or after watches are opened, does not count as idle load.
    await asyncio.sleep(testbed.scale.idle_seconds / 2)
    postmaster = testbed.postgres.process_id
    assert postmaster is not None
    before, began = processor.seconds(process_id) + processor.seconds(postmaster), time.monotonic()
    await asyncio.sleep(testbed.scale.idle_seconds)
    used = processor.seconds(process_id) + processor.seconds(postmaster) - before
    return used / (time.monotonic() - began) * 100


async def start(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 12: from the start of the command to the first response, with an existing database."""
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.children(
            ("baselines.grpc_server", testbed.cores.serving), ("loads.importing", testbed.cores.serving)
        ) as (bare, importing),
    ):
        async with testbed.product(database) as product:
            token = await product.tenant_token()
        echo = await bare.ask("start")

        async def started() -> float:
            async with testbed.product(database) as product:
                await reading.one_answer(product.address, token)
                return time.monotonic() - product.spawned

        async def connected() -> float:
            seconds: float = await importing.ask("connect", address=echo)
            return seconds

        pairs = await in_turns(started, connected, testbed.scale.runs, warm=testbed.scale.warm)
    what = "start to first answered call"
    yield compared("12", what, "s", pairs, "import grpc, connect", ("≤", 1.2), goal_of="value")
