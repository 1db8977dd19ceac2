"""Row 15: containers created by one ApplyApplication, against the same by CreateContainer with 16 callers.

An apply is one transaction: the row also shows the longest time that one was open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from statistics import median

from benchmarks.child import Child
from benchmarks.measure import (
    Figure,
    Pairs,
    Run,
    Series,
    all_in_turns,
    compared,
    database_cost,
    in_turns,
    server_cost,
)
from benchmarks.population import NAMESPACES
from benchmarks.product import Product
from benchmarks.rows.watching import LATENCY_WATCHERS, Changes
from benchmarks.testbed import Database, Testbed, connected

_CALLERS = 16
_TIMES = 5
_MOST_HELD_SECONDS = 1.0
_LOOK_SECONDS = 0.01
# The query runs in another database, so that it does not count as PostgreSQL's work for the product.
_OPEN = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float FROM pg_stat_activity
WHERE datname = $1 AND usename = 'pilothouse_app' AND xact_start IS NOT NULL
"""


async def apply_application(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures an application of some containers, one of five times as many, and the creates, each in a namespace."""
    few = testbed.scale.applied
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.product(database) as product,
        testbed.children(("loads.applications", testbed.cores.asking)) as (load,),
    ):
        runs = _Runs(testbed, database, product, load, await product.tenant_token(NAMESPACES))
        created, small, large = await all_in_turns(
            (
                lambda: runs.run("create", _TIMES * few, concurrency=_CALLERS),
                lambda: runs.run("apply", few),
                lambda: runs.run("apply", _TIMES * few),
            ),
            testbed.scale.runs,
            warm=testbed.scale.warm,
        )
    what = f"ApplyApplication of {_TIMES * few} containers"
    name = f"CreateContainer, {_CALLERS} callers"
    yield compared("15", f"{what}, beside {few}", "s", Pairs(large, small), f"of {few}", ("≤", _TIMES))
    yield server_cost("15", f"{what}, of each", Pairs(large, created), name, 0.4)
    yield server_cost(
        "15", f"ApplyApplication of {few} containers, of each", Pairs(small, created), name, 0.4
    )
    yield database_cost("15", f"{what}, of each", large, _of(created))
    yield Figure(
        "15",
        f"{what}: longest that its transaction was open",
        "s",
        median(runs.held[-testbed.scale.runs :]),
        goal=("≤", _MOST_HELD_SECONDS),
        goal_of="value",
    )


async def beside_applies(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 5 while an application is applied each second in another namespace, against row 5 alone."""
    containers = _TIMES * testbed.scale.applied
    numbers = count()
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.product(database) as product,
        testbed.children(
            ("loads.watches", testbed.cores.asking), ("loads.applications", testbed.cores.asking)
        ) as (
            watches,
            load,
        ),
    ):
        changes = await Changes.made(testbed, product, database, watches)
        token = await product.tenant_token(NAMESPACES)

        async def beside() -> Run:
            applying = load.ask(
                "apply_each_second",
                address=product.address,
                token=token,
                namespaces=[f"tenant-{number}" for number in range(NAMESPACES)],
                name=f"beside-{next(numbers)}",
                count=containers,
                seconds=testbed.scale.seconds,
            )
            run, _ = await asyncio.gather(changes.run(), applying)
            return run

        pairs = await in_turns(beside, changes.run, testbed.scale.runs, warm=testbed.scale.warm)
    what = f"change to delivery, p99 of {LATENCY_WATCHERS} watchers, and an apply of {containers} containers a second"
    yield compared("15", what, "ms", pairs, "without applies", ("≤", 1.5))


def _of(created: Series) -> float:
    return round(created.database or 0.0)


class _Runs:
    """The runs of all arms; `held` lists the longest transaction of each large apply."""

    def __init__(
        self, testbed: Testbed, database: Database, product: Product, load: Child, token: str
    ) -> None:
        self._testbed = testbed
        self._database = database
        self._product = product
        self._load = load
        self._where = {"address": product.address, "token": token}
        self._numbers = count()
        self.held: list[float] = []

    async def run(self, verb: str, containers: int, **others: int) -> Run:
        number = next(self._numbers)
        asked: Mapping[str, str | int] = {
            **self._where,
            "namespace": f"tenant-{number % NAMESPACES}",
            "name": f"made-{number}",
            "count": containers,
            **others,
        }
        async with self._watched() as held:
            run = await self._testbed.metered(
                self._product.process_id, self._database, self._load.ask(verb, **asked), "seconds"
            )
        if verb == "apply" and containers > self._testbed.scale.applied:
            self.held.append(max(held, default=0.0))
        return run

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[list[float]]:
        held: list[float] = []

        async def look() -> None:
            async with connected(self._testbed.postgres.dsn()) as connection:
                while True:
                    held.append(await connection.fetchval(_OPEN, self._database.name))
                    await asyncio.sleep(_LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield held
        finally:
            looking.cancel()
            await asyncio.wait([looking])
