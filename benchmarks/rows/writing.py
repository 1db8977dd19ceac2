"""Rows 2 and 3: CreateContainer against bare inserts of the same rows, and against itself without record and event.

Rows 2d and 2e: CreateContainer with sidecars, and with a Service, against itself without.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

from benchmarks.baselines.grpc_server import CREATE
from benchmarks.child import Child
from benchmarks.measure import (
    Arm,
    Figure,
    Pairs,
    Run,
    all_in_turns,
    compared,
    database_cost,
    in_turns,
    server_cost,
    together,
)
from benchmarks.population import ACTIVE_NAMESPACES, WRITTEN_NAMESPACES
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed, connected
from benchmarks.unrecorded import NOTHING_PENDING

CLIENTS = 16
# The number of sidecars of a container.
_SIDECARS = 3
_COMPARED = f"{CLIENTS} clients: CPU of a call, server and PostgreSQL"
NAMESPACES = [f"tenant-{i}" for i in range(ACTIVE_NAMESPACES)]
_MANY_NAMESPACES = [f"tenant-{i}" for i in range(WRITTEN_NAMESPACES)]
# The owner of the bare rows: a copy that no server has used has no user yet.
USER = (
    "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash)"
    " VALUES ('tenant', 'tenant', 'tenant@example.org', 'tenant@example.org', '!')"
)
_KEPT = """
SELECT (SELECT count(*) FROM operation_logs WHERE action = 'create' AND resource_type = 'container'),
       (SELECT count(*) FROM events WHERE resource_type = 'container')
"""


async def create_container(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures rows 2 and 2b at each number of containers, and the largest against the smallest."""
    sizes = testbed.scale.containers
    async with AsyncExitStack() as stack:
        bare, calls = await stack.enter_async_context(
            testbed.children(
                ("baselines.grpc_server", testbed.cores.serving), ("loads.calls", testbed.cores.asking)
            )
        )
        echo = await bare.ask("start")

        async def echoed() -> Run:
            return await testbed.metered(
                bare.process_id, None, create(calls, echo, "", testbed.scale.seconds, method=CREATE)
            )

        arms: list[Arm] = [echoed]
        for size in sizes:
            database = await stack.enter_async_context(testbed.database(size))
            product = await stack.enter_async_context(testbed.product(database))
            arms.append(_creating(testbed, calls, product, database, await product.tenant_token()))
            arms += [await _inserting(stack, testbed, size, locked=locked) for locked in (True, False)]
        echoes, *measured = await all_in_turns(arms, testbed.scale.runs, warm=testbed.scale.warm)
    products, locked, unlocked = measured[::3], measured[1::3], measured[2::3]
    for number, size in enumerate(sizes):
        what = f"CreateContainer, durable, {size:,} containers, {CLIENTS} clients"
        made, against_echo = products[number], Pairs(products[number], echoes)
        yield compared("2", what, "/s", Pairs(made, locked[number]), "inserts, one lock", ("≥", 1.3))
        yield compared("2b", what, "/s", Pairs(made, unlocked[number]), "inserts, no lock", ("≥", 0.5))
        yield server_cost("2", what, against_echo, "bare echo", 7.5)
        yield database_cost("2", what, made, 1_500.0)
    if len(sizes) > 1:
        what = f"CreateContainer, {sizes[-1]:,} containers beside {sizes[0]:,}"
        yield compared("2", what, "/s", Pairs(products[-1], products[0]), f"at {sizes[0]:,}", ("≥", 0.9))


async def create_with_sidecars(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 2d at the smallest number of containers, on the same server."""
    pairs = await _of_one_server(
        testbed, lambda *where: _creating(*where, having={"sidecars": _SIDECARS}), _creating
    )
    what = f"CreateContainer with {_SIDECARS} sidecars"
    yield compared("2d", f"{what}, {_COMPARED}", "µs", pairs, "without", ("≤", 1.3))


async def create_with_service(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 2e, like row 2d. Another transaction writes the row and the event of the Service."""
    pairs = await _of_one_server(
        testbed, _creating, lambda *where: _creating(*where, having={"service": False})
    )
    yield compared("2e", f"CreateContainer with a Service, {_COMPARED}", "µs", pairs, "without")


async def _of_one_server(
    testbed: Testbed,
    first: Callable[[Testbed, Child, Product, Database, str], Arm],
    second: Callable[[Testbed, Child, Product, Database, str], Arm],
) -> Pairs:
    """Returns the total CPU time, server and PostgreSQL, of two kinds of creates, in turns on the same server."""
    size = testbed.scale.containers[0]
    async with (
        testbed.database(size) as database,
        testbed.product(database) as product,
        testbed.children(("loads.calls", testbed.cores.asking)) as (calls,),
    ):
        where = (testbed, calls, product, database, await product.tenant_token())
        pairs = await in_turns(first(*where), second(*where), testbed.scale.runs, warm=testbed.scale.warm)
    return Pairs(together(pairs.product), together(pairs.baseline))


def _creating(
    testbed: Testbed,
    calls: Child,
    product: Product,
    database: Database,
    token: str,
    *,
    having: Mapping[str, int] = {},
) -> Arm:
    async def run() -> Run:
        made = create(calls, product.address, token, testbed.scale.seconds, having=having)
        return await testbed.metered(product.process_id, database, made)

    return run


async def _inserting(stack: AsyncExitStack, testbed: Testbed, size: int, *, locked: bool) -> Arm:
    """Returns the arm of the bare inserts, in a separate process and database."""
    database = await stack.enter_async_context(testbed.database(size))
    (inserts,) = await stack.enter_async_context(
        testbed.children(("baselines.inserts", testbed.cores.serving))
    )
    async with connected(database.superuser) as connection:
        await connection.execute(USER)
    await inserts.ask(
        "connect", dsn=database.superuser, clients=CLIENTS, namespaces=NAMESPACES, locked=locked
    )

    async def run() -> Run:
        inserted = inserts.ask("run", seconds=testbed.scale.seconds)
        return await testbed.metered(inserts.process_id, database, inserted)

    return run


async def create(
    calls: Child,
    address: str,
    token: str,
    seconds: float,
    *,
    method: str = "",
    clients: int = CLIENTS,
    namespaces: list[str] = NAMESPACES,
    having: Mapping[str, int] = {},
) -> Mapping[str, float]:
    """Creates containers with `clients` callers, in turn in these namespaces; returns the child's result.

    `having`: `sidecars` and `service`, as in loads/calls.py.
    """
    answer: Mapping[str, float] = await calls.ask(
        "create",
        address=address,
        namespaces=namespaces,
        concurrency=clients,
        seconds=seconds,
        token=token,
        **({"method": method} if method else {}),
        **having,
    )
    return answer


async def audit(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 3 at each number of writers."""
    size = testbed.scale.containers[0]
    unrecorded = (sys.executable, "-m", "benchmarks.unrecorded", "serve")
    async with (
        testbed.database(size) as database,
        testbed.database(size) as other_database,
        testbed.product(database) as product,
        testbed.product(other_database, program=unrecorded) as without,
        testbed.children(("loads.calls", testbed.cores.asking)) as (calls,),
        connected(other_database.superuser) as connection,
    ):
        await connection.execute(NOTHING_PENDING)
        sides = [
            (server, stored, await server.tenant_token(WRITTEN_NAMESPACES))
            for server, stored in ((product, database), (without, other_database))
        ]

        async def written(side: int, writers: int) -> Run:
            server, stored, token = sides[side]
            made = create(
                calls,
                server.address,
                token,
                testbed.scale.seconds,
                clients=writers,
                namespaces=_MANY_NAMESPACES,
            )
            return await testbed.metered(server.process_id, stored, made)

        for writers in testbed.scale.writers:
            pairs = await in_turns(
                lambda writers=writers: written(0, writers),  # type: ignore[misc]
                lambda writers=writers: written(1, writers),  # type: ignore[misc]
                testbed.scale.runs,
                warm=testbed.scale.warm,
            )
            yield compared(
                "3",
                f"the same with its record and event, {writers} writers, {WRITTEN_NAMESPACES} namespaces",
                "/s",
                pairs,
                "without",
                ("≥", 0.8),
            )
        await product.stop()
        kept = []
        for stored in (database, other_database):
            async with connected(stored.superuser) as connection:
                kept.append(tuple(await connection.fetchrow(_KEPT)))
    if not all(kept[0]) or any(kept[1]):
        raise RuntimeError(f"records and events kept: {kept[0]} with them, {kept[1]} without")
