"""Row 1: GetContainer, with all the work of the product for a read, against a bare echo of the same message."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from benchmarks.baselines.grpc_server import GET
from benchmarks.child import Child
from benchmarks.measure import Arm, Figure, Pairs, Run, all_in_turns, compared, database_cost, server_cost
from benchmarks.population import ACTIVE_NAMESPACES
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed
from pilothouse.container.v1 import container_pb2 as pb

METHOD = "/pilothouse.container.v1.ContainerService/GetContainer"
CONCURRENCY = 32
_REQUESTS = [
    pb.GetContainerRequest(namespace=f"tenant-{i}", name=f"web-{i}").SerializeToString()
    for i in range(ACTIVE_NAMESPACES)
]


async def get_container(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 1 at each number of containers, and the largest against the smallest."""
    sizes = testbed.scale.containers
    async with AsyncExitStack() as stack:
        bare, calls = await stack.enter_async_context(
            testbed.children(
                ("baselines.grpc_server", testbed.cores.serving), ("loads.calls", testbed.cores.asking)
            )
        )
        arms: list[Arm] = []
        answer = b""
        for size in sizes:
            database = await stack.enter_async_context(testbed.database(size))
            product = await stack.enter_async_context(testbed.product(database))
            token = await product.tenant_token()
            answer = await one_answer(product.address, token)
            arms.append(_getting(testbed, calls, product, database, token))
        echo = await bare.ask("start", answer=b64encode(answer).decode())

        async def echoed() -> Run:
            asked = calls.ask("run", address=echo, method=GET, **_load(testbed))
            return await testbed.metered(bare.process_id, None, asked)

        base, *products = await all_in_turns((echoed, *arms), testbed.scale.runs, warm=testbed.scale.warm)
    for size, product_runs in zip(sizes, products, strict=True):
        what = f"GetContainer, {size:,} containers, {CONCURRENCY} at a time"
        pairs = Pairs(product_runs, base)
        yield compared("1", what, "/s", pairs, "bare echo", ("≥", 0.4))
        yield server_cost("1", what, pairs, "bare echo", 2.4)
        yield database_cost("1", what, product_runs, 250.0)
    if len(sizes) > 1:
        what = f"GetContainer, {sizes[-1]:,} containers beside {sizes[0]:,}"
        yield compared("1", what, "/s", Pairs(products[-1], products[0]), f"at {sizes[0]:,}", ("≥", 0.9))


def _getting(testbed: Testbed, calls: Child, product: Product, database: Database, token: str) -> Arm:
    async def run() -> Run:
        asked = calls.ask("run", address=product.address, method=METHOD, token=token, **_load(testbed))
        return await testbed.metered(product.process_id, database, asked)

    return run


def _load(testbed: Testbed) -> dict[str, Any]:
    return {"requests": encoded_requests(), "concurrency": CONCURRENCY, "seconds": testbed.scale.seconds}


def encoded_requests() -> list[str]:
    """Returns requests for containers of the active namespaces, encoded for the children."""
    return [b64encode(request).decode() for request in _REQUESTS]


async def one_answer(address: str, token: str) -> bytes:
    """Returns the product's response to one GetContainer; the echo returns the same message."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        return await call(_REQUESTS[0], metadata=(("authorization", f"Bearer {token}"),))
