"""Rows 6 and 9: samples stored a second, and a month of usage by the hour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from benchmarks import population
from benchmarks.child import Child
from benchmarks.measure import Figure, in_turns
from benchmarks.world import World, connected

_DAYS = 30
_SAMPLES = 20_000
_TABLE = "copied_usage"
# The product's table with its partitions, indexes and foreign key, and without row-level security.
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


async def record_usage(world: World) -> AsyncIterator[Figure]:
    """Row 6."""
    samples = _SAMPLES if world.scale.seconds >= 1 else _SAMPLES // 4
    async with (
        world.database(1_000) as database,
        world.product(database) as product,
        world.children(("loads.usage", world.cores.asking), ("loads.usage", world.cores.serving)) as (
            sender,
            copier,
        ),
    ):
        async with connected(database.superuser) as connection:
            await connection.execute(_SAME_TABLE)
            containers = [list(row) for row in await connection.fetch(_CONTAINERS)]
        token = await product.token()
        common: dict[str, Any] = {"containers": containers, "samples": samples}
        pairs = await in_turns(
            lambda: sender.ask("record", address=product.address, token=token, **common),
            lambda: copier.ask("copy", dsn=database.superuser, table=_TABLE, **common),
            world.scale.runs,
        )
    yield Figure(
        "6",
        f"RecordUsage, {samples:,} samples of 1,000 containers",
        "/s",
        pairs.value,
        pairs.base,
        "COPY",
        pairs.spread,
        ("≥", 0.7),
        notes=("COPY goes into the same partitioned table with its indexes and its foreign key",),
    )


async def query_usage(world: World) -> AsyncIterator[Figure]:
    """Row 9: of all containers, and of one."""
    containers = world.scale.usage_containers
    async with (
        world.database(containers) as database,
        world.product(database) as product,
        world.children(("loads.usage", world.cores.asking), ("loads.usage", world.cores.serving)) as (
            asker,
            bare,
        ),
    ):
        async with connected(database.superuser) as connection:
            await population.usage(connection, _DAYS)
            one = await _first_container(connection)
        token = await product.token()
        for what, names, container_id in (
            (f"{containers:,} containers, all pages", {}, None),
            ("one container", {"namespace": one["namespace"], "container": one["name"]}, one["id"]),
        ):
            yield await _query(
                f"QueryUsage, {_DAYS} days by the hour, {what}",
                asker,
                bare,
                {"address": product.address, "token": token, "days": _DAYS, **names},
                {"dsn": database.superuser, "days": _DAYS, "container_id": container_id},
                world.scale.runs,
            )


async def _first_container(connection: asyncpg.Connection) -> Any:
    return await connection.fetchrow(
        "SELECT c.id, c.name, n.name AS namespace FROM containers AS c"
        " JOIN namespaces AS n ON n.id = c.namespace_id ORDER BY c.id LIMIT 1"
    )


async def _query(
    what: str, asker: Child, bare: Child, asked: dict[str, Any], aggregated: dict[str, Any], runs: int
) -> Figure:
    points: set[float] = set()

    async def product() -> float:
        seconds, found = await asker.ask("query", **asked)
        points.add(found)
        return float(seconds)

    async def baseline() -> float:
        seconds, found = await bare.ask("aggregate", **aggregated)
        points.add(found)
        return float(seconds)

    pairs = await in_turns(product, baseline, runs)
    if len(points) != 1:
        raise RuntimeError(f"the product and the aggregate do not answer the same points: {points}")
    return Figure(
        "9",
        f"{what} ({points.pop():,.0f} points)",
        "s",
        pairs.value,
        pairs.base,
        "one aggregate",
        pairs.spread,
        ("≤", 0.1),
    )
