"""Honest users next to an attack: their results and delays.

This is a process of its own. Each user has an address of its own (127.0.0.2 and up). Calls begin at fixed
times, whether earlier calls have ended or not. A stopped server therefore shows in all calls that would have
been made during the stop. In addition, a kubelet checks the server's health, on a new connection each time.

    {"address": …, "callers": [{"token": …, "namespace": …, "source": "127.0.0.2"}], "seconds": …}
    300

The first input line names the users. Each further line requests that number of calls, and gets one output line:
a `Window` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import grpc.aio

from pilothouse.config.v1 import config_pb2, config_pb2_grpc
from pilothouse.container.v1 import container_pb2, container_pb2_grpc
from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from tests.promises.hostile.wire import HEALTH, SERVING, Connection

CALLS_A_SECOND = 50.0
# Calls that are due before this time are measured separately.
FIRST_SECONDS = 1.0
# One call of this many is the kubelet's.
_HEALTH_EVERY = 10
_KUBELET = "127.0.0.200"


class Window(NamedTuple):
    """The bystanders' measurements in one window.

    These are the seconds of each call, the failures, and the results of health checks. An attack begins
    together with its window, so calls of the first second are separate from the rest.
    """

    first_latencies: list[float]
    latencies: list[float]
    errors: list[str]
    health_latencies: list[float]
    health_errors: list[str]
    seconds: float

    @property
    def longest_of_first(self) -> float:
        """Returns the seconds of the slowest call that was due in the first second."""
        return max(self.first_latencies)

    @property
    def p99(self) -> float:
        """Returns the 99th percentile of the seconds of calls after the first second."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


@dataclass
class _Met:
    first_latencies: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _Relay(asyncio.Protocol):
    """One end of a connection that continues from another local address."""

    def __init__(self, other: _Relay | None = None) -> None:
        self.other = other
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


@asynccontextmanager
async def _from(source: str, address: str) -> AsyncIterator[str]:
    """Yields an address that forwards to the server from the source address.

    gRPC's clients cannot choose their own address.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    opening: set[asyncio.Task[None]] = set()

    class Near(_Relay):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()
            task = asyncio.ensure_future(self.lead_on())
            opening.add(task)
            task.add_done_callback(opening.discard)

        async def lead_on(self) -> None:
            try:
                _, far = await loop.create_connection(
                    lambda: _Relay(self), host, int(port), local_addr=(source, 0)
                )
            except OSError:
                self.transport.abort()
                return
            self.other = far
            self.transport.resume_reading()

    server = await loop.create_server(Near, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class Bystander:
    """One user, which reads, lists, writes a little, and calls WhoAmI."""

    def __init__(self, channel: grpc.aio.Channel, token: str, namespace: str, seconds: float) -> None:
        containers: Any = container_pb2_grpc.ContainerServiceStub(channel)
        configs: Any = config_pb2_grpc.ConfigServiceStub(channel)
        identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        options = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": seconds}
        numbers = count()
        get = container_pb2.GetContainerRequest(namespace=namespace, name="web-0")
        page = container_pb2.ListContainersRequest(namespace=namespace, page_size=20)

        def write() -> Awaitable[Any]:
            wanted = config_pb2.UpdateConfigMapRequest(namespace=namespace, name="settings")
            wanted.config_map.data["number"] = str(next(numbers))
            wanted.update_mask.paths.append("data")
            return configs.UpdateConfigMap(wanted, **options)  # type: ignore[no-any-return]

        self.calls: Sequence[tuple[str, Callable[[], Awaitable[Any]]]] = (
            ("GetContainer", lambda: containers.GetContainer(get, **options)),
            ("ListContainers", lambda: containers.ListContainers(page, **options)),
            ("WhoAmI", lambda: identity.WhoAmI(identity_pb2.WhoAmIRequest(), **options)),
            ("GetContainer", lambda: containers.GetContainer(get, **options)),
            ("UpdateConfigMap", write),
        )


async def _asks_for_health(address: str, seconds: float) -> None:
    """Checks the health once, on a new connection. Raises on failure."""
    connection = Connection(address, _KUBELET)
    try:
        async with asyncio.timeout(seconds):
            await connection.open()
            answer = await connection.call(HEALTH)
        if answer != SERVING:
            raise ConnectionError(f"answered {answer!r}")
    finally:
        connection.close()


class Bystanders:
    """All bystanders, which make the calls of a window."""

    def __init__(self, address: str, bystanders: Sequence[Bystander], seconds: float) -> None:
        self._address = address
        self._bystanders = bystanders
        self._seconds = seconds
        self._numbers = count()

    async def window(self, calls: int) -> Window:
        """Makes `calls` calls; returns when all have succeeded or failed."""
        met, health = _Met(), _Met()
        loop = asyncio.get_running_loop()
        began = loop.time()
        tasks: list[asyncio.Task[None]] = []
        all_begun = asyncio.Event()

        def begin(number: int) -> None:
            due = began + number / CALLS_A_SECOND
            latencies = met.first_latencies if due - began < FIRST_SECONDS else met.latencies
            tasks.append(asyncio.ensure_future(self._call(due, latencies, met.errors, health)))
            if number + 1 == calls:
                all_begun.set()
            else:
                loop.call_at(began + (number + 1) / CALLS_A_SECOND, begin, number + 1)

        begin(0)
        await all_begun.wait()
        await asyncio.gather(*tasks)
        return Window(
            met.first_latencies,
            met.latencies,
            met.errors,
            health.latencies,
            health.errors,
            loop.time() - began,
        )

    async def _call(self, due: float, latencies: list[float], errors: list[str], health: _Met) -> None:
        """Makes the next call. Its time counts from when it was due."""
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        if number % _HEALTH_EVERY == 0:
            try:
                await _asks_for_health(self._address, self._seconds)
            except (OSError, TimeoutError) as error:
                health.errors.append(f"Health.Check: {type(error).__name__} {error}")
            health.latencies.append(loop.time() - due)
            return
        bystander = self._bystanders[number % len(self._bystanders)]
        name, call = bystander.calls[(number // len(self._bystanders)) % len(bystander.calls)]
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            errors.append(f"{name}: {error.code().name} {error.details()}")
        latencies.append(loop.time() - due)


async def _main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    order = json.loads(await reader.readline())
    async with AsyncExitStack() as stack:
        bystanders = []
        for caller in order["callers"]:
            address = await stack.enter_async_context(_from(caller["source"], order["address"]))
            channel = grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
            await stack.enter_async_context(channel)
            bystanders.append(Bystander(channel, caller["token"], caller["namespace"], order["seconds"]))
        all_of_them = Bystanders(order["address"], bystanders, order["seconds"])
        while line := await reader.readline():
            print(json.dumps(await all_of_them.window(int(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
