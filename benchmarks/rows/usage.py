"""Rows 6 and 9: samples stored per second, and a month of usage by the hour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from benchmarks import population
from benchmarks.measure import Figure, Run, compared, in_turns
from benchmarks.testbed import Database, Testbed, connected

_DAYS = 30
_TABLE = "copied_usage"
# The product's table with its partitions, indexes and foreign key, but without row-level security.
_SAME_TABLE = """
CREATE TABLE copied_usage (LIKE container_resource_usage INCLUDING ALL) PARTITION BY RANGE (timestamp);
ALTER TABLE copied_usage ADD FOREIGN KEY (container_id, namespace_id)
    REFERENCES containers (id, namespace_id) ON DELETE CASCADE;
CREATE TABLE copied_usage_now PARTITION OF copied_usage
    FOR VALUES FROM (CURRENT_DATE - 2) TO (CURRENT_DATE + 3);
"""
_CONTAINERS = (
    "SELECT c.id, c.namespace_id, c.name, n.name FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id"
    " ORDER BY c.id LIMIT 1000"
)
_PACKING_SECONDS = 300
# Selects whether a past day is not packed yet.
_UNPACKED = """
SELECT EXISTS (SELECT FROM container_usage_days WHERE format = 0 AND day < date_trunc('day', now() - interval '2 min'))
"""


async def record_usage(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 6."""
    samples = testbed.scale.samples
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.product(database) as product,
        testbed.children(("loads.usage", testbed.cores.asking), ("loads.usage", testbed.cores.serving)) as (
            sender,
            copier,
        ),
    ):
        async with connected(database.superuser) as connection:
            await connection.execute(_SAME_TABLE)
            containers = [list(row) for row in await connection.fetch(_CONTAINERS)]
        token = await product.token()
        common: dict[str, Any] = {"containers": containers, "samples": samples}

        async def recorded() -> Run:
            asked = sender.ask("record", address=product.address, token=token, **common)
            return await testbed.metered(product.process_id, database, asked)

        async def copied() -> Run:
            asked = copier.ask("copy", dsn=database.superuser, table=_TABLE, **common)
            return await testbed.metered(copier.process_id, database, asked)

        pairs = await in_turns(recorded, copied, testbed.scale.runs, warm=testbed.scale.warm)
    yield compared(
        "6",
        f"RecordUsage, {samples:,} samples of {len(containers):,} containers",
        "/s",
        pairs,
        "COPY",
        ("≥", 0.7),
        notes=(
            "COPY goes into the same partitioned table with its indexes and its foreign key; CPU of a sample",
        ),
    )


async def query_usage(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 9: the usage of all containers, and of one."""
    containers = testbed.scale.usage_containers
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(testbed.database(containers))
        connection = await stack.enter_async_context(connected(database.superuser))
        await population.usage(connection, _DAYS)
        one = await _first_container(connection)
        # The product rolls up and packs existing samples when it starts.
        product = await stack.enter_async_context(testbed.product(database))
        children = testbed.children(
            ("loads.usage", testbed.cores.asking), ("loads.usage", testbed.cores.serving)
        )
        asker, bare = await stack.enter_async_context(children)
        await _packed(connection)
        await population.analyze(connection, "container_usage_days")
        token = await product.token()
        for what, names, container_id in (
            (f"{containers:,} containers, all pages", {}, None),
            ("one container", {"namespace": one["namespace"], "container": one["name"]}, one["id"]),
        ):
            question = {"address": product.address, "token": token, "days": _DAYS, **names}
            summed = {"dsn": database.superuser, "days": _DAYS, "container_id": container_id}
            arms = (
                _Asked(testbed, product.process_id, database, lambda q=question: asker.ask("query", **q)),  # type: ignore[misc]
                _Asked(testbed, bare.process_id, database, lambda a=summed: bare.ask("aggregate", **a)),  # type: ignore[misc]
            )
            pairs = await in_turns(arms[0].run, arms[1].run, testbed.scale.runs, warm=testbed.scale.warm)
            points = arms[0].points | arms[1].points
            if len(points) != 1:
                raise RuntimeError(f"the product and the aggregate do not answer the same points: {points}")
            what = f"QueryUsage, {_DAYS} days by the hour, {what} ({points.pop():,.0f} points)"
            yield compared("9", what, "s", pairs, "one aggregate", ("≤", 0.1))


class _Asked:
    """An arm that runs one query per run; `points` are the numbers of points in the responses."""

    def __init__(
        self, testbed: Testbed, process_id: int, database: Database, ask: Callable[[], Awaitable[list[float]]]
    ) -> None:
        self._testbed = testbed
        self._process_id = process_id
        self._database = database
        self._ask = ask
        self.points: set[float] = set()

    async def run(self) -> Run:
        """Measures the seconds of the query."""
        return await self._testbed.metered(self._process_id, self._database, self._answered(), "seconds")

    async def _answered(self) -> dict[str, float]:
        seconds, found = await self._ask()
        self.points.add(found)
        return {"seconds": seconds, "calls": 1}


async def _packed(connection: asyncpg.Connection) -> None:
    """Waits until the product has packed all past days."""
    for _ in range(_PACKING_SECONDS):
        if not await connection.fetchval(_UNPACKED):
            return
        await asyncio.sleep(1)
    raise RuntimeError("the product does not pack the days that are over")


async def _first_container(connection: asyncpg.Connection) -> Any:
    return await connection.fetchrow(
        "SELECT c.id, c.name, n.name AS namespace FROM containers AS c"
        " JOIN namespaces AS n ON n.id = c.namespace_id ORDER BY c.id LIMIT 1"
    )
