"""Row 2c: changes of containers against a create, by CPU time, and against bare updates of the same rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.child import Child
from benchmarks.loads.changes import KINDS
from benchmarks.measure import Arm, Figure, Pairs, Run, all_in_turns, compared, together
from benchmarks.population import NAMESPACES
from benchmarks.product import Product
from benchmarks.rows import writing
from benchmarks.world import Database, World, connected

# The number of containers of each caller.
_EACH = 10


async def change_container(world: World) -> AsyncIterator[Figure]:
    """Measures each kind of change, at the smallest number of containers."""
    size = world.scale.containers[0]
    async with AsyncExitStack() as stack:
        calls, changes = await stack.enter_async_context(
            world.children(("loads.calls", world.cores.asking), ("loads.changes", world.cores.asking))
        )
        database = await stack.enter_async_context(world.database(size))
        product = await stack.enter_async_context(world.product(database))
        token = await product.tenant_token()

        async def created() -> Run:
            made = writing.create(calls, product.address, token, world.scale.seconds)
            return await world.metered(product.process_id, database, made)

        arms = [
            created,
            await _updating(stack, world, size),
            *(_changing(world, changes, product, database, token, kind, size) for kind in KINDS),
        ]
        creates, bare, *measured = await all_in_turns(arms, world.scale.runs, warm=world.scale.warm)
    for kind, runs in zip(KINDS, measured, strict=True):
        what = f"{kind}, {size:,} containers, {writing.CLIENTS} clients"
        yield compared("2c", what, "/s", Pairs(runs, bare), "bare updates, no lock")
        yield _cost(what, Pairs(runs, creates))


def _cost(what: str, pairs: Pairs) -> Figure:
    """Returns the line of a call's total CPU time, server and PostgreSQL, next to a create."""
    costs = f"{what}: CPU of a call, server and PostgreSQL"
    both = Pairs(together(pairs.product), together(pairs.baseline))
    return compared("2c", costs, "µs", both, "CreateContainer", ("≤", 1.2))


def owned(size: int) -> list[list[list[str]]]:
    """Returns the containers of each caller; each caller has its own namespace."""
    names = range(min(size, NAMESPACES * _EACH))
    return [
        [[f"tenant-{number}", f"web-{i}"] for i in names if i % NAMESPACES == number]
        for number in range(writing.CLIENTS)
    ]


def _changing(
    world: World, changes: Child, product: Product, database: Database, token: str, kind: str, size: int
) -> Arm:
    async def run() -> Run:
        changed = changes.ask(
            "run",
            address=product.address,
            kind=kind,
            owned=owned(size),
            seconds=world.scale.seconds,
            token=token,
        )
        return await world.metered(product.process_id, database, changed)

    return run


async def _updating(stack: AsyncExitStack, world: World, size: int) -> Arm:
    """Returns the arm of the bare updates, in a separate process and database."""
    database = await stack.enter_async_context(world.database(size))
    (updates,) = await stack.enter_async_context(world.children(("baselines.updates", world.cores.serving)))
    async with connected(database.superuser) as connection:
        await connection.execute(writing.USER)
    await updates.ask(
        "connect",
        dsn=database.superuser,
        clients=writing.CLIENTS,
        namespaces=writing.NAMESPACES,
        locked=False,
    )
    await updates.ask("own", each=_EACH)

    async def run() -> Run:
        return await world.metered(
            updates.process_id, database, updates.ask("run", seconds=world.scale.seconds)
        )

    return run
