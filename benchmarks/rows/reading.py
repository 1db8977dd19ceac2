"""Row 1: GetContainer, with all that the product does for a read, against a bare echo of the same message."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator

import grpc.aio

from benchmarks.baselines.grpc_server import GET
from benchmarks.measure import Figure, in_turns
from benchmarks.population import ACTIVE_NAMESPACES
from benchmarks.world import World
from pilothouse.container.v1 import container_pb2 as pb

METHOD = "/pilothouse.container.v1.ContainerService/GetContainer"
CONCURRENCY = 32
_REQUESTS = [
    pb.GetContainerRequest(namespace=f"tenant-{i}", name=f"web-{i}").SerializeToString()
    for i in range(ACTIVE_NAMESPACES)
]


async def get_container(world: World) -> AsyncIterator[Figure]:
    """Row 1, at each number of containers."""
    for containers in world.scale.containers:
        yield await _get_container(world, containers)


async def _get_container(world: World, containers: int) -> Figure:
    async with (
        world.database(containers) as database,
        world.product(database) as product,
        world.children(
            ("baselines.grpc_server", world.cores.serving), ("loads.calls", world.cores.asking)
        ) as (bare, calls),
    ):
        token = await product.tenant_token()
        echo = await bare.ask("start", answer=b64encode(await one_answer(product.address, token)).decode())
        common = {
            "requests": encoded_requests(),
            "concurrency": CONCURRENCY,
            "seconds": world.scale.seconds,
        }

        async def rate(**where: str) -> float:
            answer = await calls.ask("run", **where, **common)
            return float(answer["rate"])

        pairs = await in_turns(
            lambda: rate(address=product.address, method=METHOD, token=token),
            lambda: rate(address=echo, method=GET),
            world.scale.runs,
        )
    return Figure(
        "1",
        f"GetContainer, {containers:,} containers, {CONCURRENCY} at a time",
        "/s",
        pairs.value,
        pairs.base,
        "bare echo",
        pairs.spread,
        ("≥", 0.5),
    )


def encoded_requests() -> list[str]:
    """Requests for containers of the active namespaces, as children are given them."""
    return [b64encode(request).decode() for request in _REQUESTS]


async def one_answer(address: str, token: str) -> bytes:
    """What the product answers to one GetContainer: the message that the echo answers, too."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        return await call(_REQUESTS[0], metadata=(("authorization", f"Bearer {token}"),))
