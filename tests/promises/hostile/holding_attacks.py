"""Attacks on the seats: calls that last, and calls that need much work.

See `attacker`. A call that the server ends is begun again, so the attack lasts until it is over.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.hostile import wire
from tests.promises.hostile.attacker import Order, Report, run
from tests.promises.hostile.wire import Connection, frame
from tests.waiting import runs_out

LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
GET = "/pilothouse.container.v1.ContainerService/GetContainer"
CREATE = "/pilothouse.container.v1.ContainerService/CreateContainer"
WATCH = "/pilothouse.container.v1.ContainerService/WatchContainers"
QUERY_USAGE = "/pilothouse.metrics.v1.MetricsService/QueryUsage"
LIST_OPERATIONS = "/pilothouse.audit.v1.AuditService/ListOperations"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_CONNECTIONS = 20
# The number of samples of each container whose usage is queried, and the seconds between them.
SAMPLES, SAMPLES_SECONDS = 800, 10
# A refused call is repeated without the requested pause, as a badly written client does.
_PAUSE_SECONDS = 5.0


# The headers of a call, and its request; None means that the request is never sent.
_Call = tuple[bytes, bytes | None]


def all_usage(namespace: str) -> metrics_pb2.QueryUsageRequest:
    """Returns a query for a point for each stored sample of each container."""
    request = metrics_pb2.QueryUsageRequest(namespace=namespace)
    request.step.seconds = SAMPLES_SECONDS
    request.end_time.GetCurrentTime()
    request.start_time.seconds = request.end_time.seconds - SAMPLES * SAMPLES_SECONDS
    return request


def _calls(order: Order) -> Mapping[str, _Call]:
    watch = container_pb2.WatchContainersRequest(namespace=order.namespace).SerializeToString()
    page = audit_pb2.ListOperationsRequest(page_size=1000).SerializeToString()
    # A container with the most fields that are allowed. Its name exists already, so it is refused after all of
    # it was read.
    large = container_pb2.CreateContainerRequest(namespace=order.namespace)
    large.container.name = "web-0"
    large.container.image = "nginx:1.27"
    for number in range(16):
        first = large.container.init_containers.add(name=f"init-{number}", image="nginx:1.27")
        for variable in range(512):
            first.env.add(name=f"VARIABLE_{variable}", value=f"value {variable:06d}")
    return {
        "watches of health": (wire.header_block(HEALTH_WATCH), b""),
        "reflections": (wire.header_block(REFLECTION), None),
        "log-ins without a request": (wire.header_block(LOGIN), None),
        "calls without a request": (wire.header_block(GET, order.token), None),
        "watches": (wire.header_block(WATCH, order.token), watch),
        "wide pages": (wire.header_block(LIST_OPERATIONS, order.token), page),
        "queries of usage": (
            wire.header_block(QUERY_USAGE, order.token),
            all_usage(order.namespace).SerializeToString(),
        ),
        "large requests": (wire.header_block(CREATE, order.token), large.SerializeToString()),
    }


def _begun(connection: Connection, stream: int, call: _Call) -> None:
    block, request = call
    sent = frame(wire.HEADERS, wire.END_HEADERS, stream, block)
    if request is not None:
        sent += frame(wire.DATA, wire.END_STREAM, stream, wire.message(request))
    connection.write(sent)


async def _is_over_before_it_comes_back(order: Order) -> bool:
    # Each call pauses independently, as gRPC clients do.
    with suppress(TimeoutError):
        async with asyncio.timeout(runs_out(_PAUSE_SECONDS * random.uniform(0.5, 1.5))):
            await order.over.wait()
    return order.over.is_set()


async def held(order: Order) -> Report:
    """Keeps `count` calls of the kind `options["kind"]` open, on 20 connections."""
    call = _calls(order)[order.options["kind"]]
    done: Counter[str] = Counter()
    connections = [Connection(order.address, order.source) for _ in range(_CONNECTIONS)]

    async def hold(connection: Connection) -> None:
        while True:
            stream = connection.stream()
            _begun(connection, stream, call)
            done["begun"] += 1
            await connection.ended(stream).wait()
            done["ended"] += 1
            if await _is_over_before_it_comes_back(order):
                return

    order.begins()
    try:
        for each in connections:
            await each.open()
        tasks = [
            asyncio.create_task(hold(connections[number % _CONNECTIONS])) for number in range(order.count)
        ]
        await order.over.wait()
        await cancel_and_wait(*tasks)
    finally:
        for each in connections:
            each.close()
    return dict(done)


if __name__ == "__main__":
    run({"held": held})
