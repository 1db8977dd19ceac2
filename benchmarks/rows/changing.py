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
from benchmarks.testbed import Database, Testbed, connected

# The number of containers of each caller.
_EACH = 10


async def change_container(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures each kind of change, at the smallest number of containers."""
    size = testbed.scale.containers[0]
    async with AsyncExitStack() as stack:
        calls, changes = await stack.enter_async_context(
            testbed.children(("loads.calls", testbed.cores.asking), ("loads.changes", testbed.cores.asking))
        )
        database = await stack.enter_async_context(testbed.database(size))
        product = await stack.enter_async_context(testbed.product(database))
        token = await product.tenant_token()

        async def created() -> Run:
            made = writing.create(calls, product.address, token, testbed.scale.seconds)
            return await testbed.metered(product.process_id, database, made)

        arms = [
            created,
            await _updating(stack, testbed, size),
            *(_changing(testbed, changes, product, database, token, kind, size) for kind in KINDS),
        ]
        creates, bare, *measured = await all_in_turns(arms, testbed.scale.runs, warm=testbed.scale.warm)
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
    testbed: Testbed, changes: Child, product: Product, database: Database, token: str, kind: str, size: int
) -> Arm:
    async def run() -> Run:
        changed = changes.ask(
            "run",
            address=product.address,
            kind=kind,
            owned=owned(size),
            seconds=testbed.scale.seconds,
            token=token,
        )
        return await testbed.metered(product.process_id, database, changed)

    return run


async def _updating(stack: AsyncExitStack, testbed: Testbed, size: int) -> Arm:
    """Returns the arm of the bare updates, in a separate process and database."""
    database = await stack.enter_async_context(testbed.database(size))
    (updates,) = await stack.enter_async_context(
        testbed.children(("baselines.updates", testbed.cores.serving))
    )
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
        return await testbed.metered(
            updates.process_id, database, updates.ask("run", seconds=testbed.scale.seconds)
        )

    return run
