"""Rows 2 and 3: CreateContainer against bare inserts of the same rows, and against itself without audit records."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping

from benchmarks.child import Child
from benchmarks.measure import Figure, in_turns
from benchmarks.population import ACTIVE_NAMESPACES
from benchmarks.world import World, connected

_CLIENTS = 16
_NAMESPACES = [f"tenant-{i}" for i in range(ACTIVE_NAMESPACES)]
# Whose rows the bare ones are: a copy that no server was on has no user yet.
_USER = (
    "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash)"
    " VALUES ('tenant', 'tenant', 'tenant@example.org', 'tenant@example.org', '!')"
)
_RECORDS = "SELECT count(*) FROM operation_logs WHERE action = 'create' AND resource_type = 'container'"


async def create_container(world: World) -> AsyncIterator[Figure]:
    """Row 2, at each number of containers."""
    for containers in world.scale.containers:
        yield await _create_container(world, containers)


async def _create_container(world: World, containers: int) -> Figure:
    seconds = world.scale.seconds
    async with (
        world.database(containers) as database,
        world.database(containers) as bare_database,
        world.product(database) as product,
        world.children(("baselines.inserts", world.cores.serving), ("loads.calls", world.cores.asking)) as (
            inserts,
            calls,
        ),
    ):
        async with connected(bare_database.superuser) as connection:
            await connection.execute(_USER)
        await inserts.ask("connect", dsn=bare_database.superuser, clients=_CLIENTS, namespaces=_NAMESPACES)
        token = await product.tenant_token()
        pairs = await in_turns(
            lambda: _rate(calls, product.address, token, seconds),
            lambda: inserts.ask("run", seconds=seconds),
            world.scale.runs,
        )
    return Figure(
        "2",
        f"CreateContainer, durable, {containers:,} containers, {_CLIENTS} clients",
        "/s",
        pairs.value,
        pairs.base,
        "bare inserts",
        pairs.spread,
        ("≥", 0.4),
    )


async def create(calls: Child, address: str, token: str, seconds: float) -> Mapping[str, float]:
    """Containers made by sixteen callers; what the child answers."""
    answer: Mapping[str, float] = await calls.ask(
        "create",
        address=address,
        namespaces=_NAMESPACES,
        concurrency=_CLIENTS,
        seconds=seconds,
        token=token,
    )
    return answer


async def _rate(calls: Child, address: str, token: str, seconds: float) -> float:
    return (await create(calls, address, token, seconds))["rate"]


async def audit(world: World) -> AsyncIterator[Figure]:
    """Row 3, at each number of containers."""
    for containers in world.scale.containers:
        yield await _audit(world, containers)


async def _audit(world: World, containers: int) -> Figure:
    seconds = world.scale.seconds
    unrecorded = (sys.executable, "-m", "benchmarks.unrecorded", "serve")
    async with (
        world.database(containers) as database,
        world.database(containers) as other_database,
        world.product(database) as product,
        world.product(other_database, program=unrecorded) as without,
        world.children(("loads.calls", world.cores.asking)) as (calls,),
    ):
        token, other_token = await product.tenant_token(), await without.tenant_token()
        pairs = await in_turns(
            lambda: _rate(calls, product.address, token, seconds),
            lambda: _rate(calls, without.address, other_token, seconds),
            world.scale.runs,
        )
        kept = []
        for asked in (database, other_database):
            async with connected(asked.superuser) as connection:
                kept.append(await connection.fetchval(_RECORDS))
    if not kept[0] or kept[1]:
        raise RuntimeError(f"{kept[0]} records were kept with the audit, {kept[1]} without")
    return Figure(
        "3",
        f"the same with its audit record and chain, {containers:,} containers",
        "/s",
        pairs.value,
        pairs.base,
        "without",
        pairs.spread,
        ("≥", 0.85),
    )
