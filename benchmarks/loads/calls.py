"""Calls of one method, from a number of concurrent callers, for a number of seconds.

The result is the number of calls per second and in total; the CPU time of the server is measured from outside.
Requests and responses stay bytes, so that the caller costs as little as possible.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count, cycle
from uuid import uuid4

import grpc.aio

from benchmarks.child import answering
from pilothouse.container.v1 import container_pb2 as pb

_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class Calls:
    """The calls of this process."""

    def __init__(self) -> None:
        self._numbers = count()

    async def run(
        self,
        address: str,
        method: str,
        requests: list[str],
        concurrency: int,
        seconds: float,
        token: str = "",
        connections: int = 1,
    ) -> dict[str, float]:
        """Sends `requests` (base64) in turn. Raises AioRpcError if one fails."""
        ready = [b64decode(request) for request in requests]
        numbers = count()
        return await self._measure(
            address,
            method,
            lambda _number: ready[next(numbers) % len(ready)],
            concurrency,
            seconds,
            token,
            connections,
        )

    async def create(
        self,
        address: str,
        namespaces: list[str],
        concurrency: int,
        seconds: float,
        token: str,
        method: str = "/pilothouse.container.v1.ContainerService/CreateContainer",
        sidecars: int = 0,
        service: bool = True,
    ) -> dict[str, float]:
        """Creates containers, each with a unique name and request id; no two callers share a namespace.

        Each of the `sidecars` has the variables, port and resources of a main program. `service`: whether the
        container's port has a Service.
        """
        if len(namespaces) < concurrency:
            raise ValueError("there are more callers than namespaces")
        own = [cycle(namespaces[number::concurrency]) for number in range(concurrency)]
        return await self._measure(
            address,
            method,
            lambda number: self._container(next(own[number]), sidecars, service),
            concurrency,
            seconds,
            token,
        )

    def _container(self, namespace: str, sidecars: int, service: bool) -> bytes:
        name = f"made-{next(self._numbers)}"
        env = [
            pb.EnvVar(name="FIRST", value="a value of some length"),
            pb.EnvVar(name="SECOND", value="a value of some length"),
        ]
        resources = pb.Resources(
            cpu_request="100m", cpu_limit="500m", memory_request="128Mi", memory_limit="256Mi"
        )
        container = pb.Container(
            name=name,
            image="image-1:1.0",
            env=env,
            ports=[
                pb.Port(
                    name="http",
                    container_port=8080,
                    service_type=pb.SERVICE_TYPE_UNSPECIFIED if service else pb.SERVICE_TYPE_NONE,
                )
            ],
            resources=resources,
            labels={"app": "made"},
            sidecars=[
                pb.Program(
                    name=f"sidecar-{number}",
                    image="image-1:1.0",
                    env=env,
                    ports=[pb.ProgramPort(name=f"port-{number}", container_port=9000 + number)],
                    resources=resources,
                )
                for number in range(sidecars)
            ],
        )
        return pb.CreateContainerRequest(
            namespace=namespace, container=container, request_id=str(uuid4())
        ).SerializeToString()

    async def _measure(
        self,
        address: str,
        method: str,
        request: Callable[[int], bytes],
        concurrency: int,
        seconds: float,
        token: str,
        connections: int = 1,
    ) -> dict[str, float]:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        answered = 0
        async with AsyncExitStack() as stack:
            calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = []
            for _ in range(connections):
                channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
                calls.append((await stack.enter_async_context(channel)).unary_unary(method))
            for number, call in enumerate(calls):
                await call(request(number), metadata=metadata)
            began = time.perf_counter()
            end = began + seconds

            async def one_client(number: int) -> None:
                nonlocal answered
                call = calls[number % connections]
                while time.perf_counter() < end:
                    await call(request(number), metadata=metadata)
                    answered += 1

            await asyncio.gather(*(one_client(number) for number in range(concurrency)))
            taken = time.perf_counter() - began
        # The initial calls, before the clock started, cost the server as much as the other calls.
        return {"rate": answered / taken, "calls": answered + connections}

    async def answer(self, address: str, method: str, request: str, token: str = "") -> int:
        """Returns the length of one response; shows that a call works."""
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            return len(await call(b64decode(request), metadata=metadata))


def main() -> None:
    """Runs the process."""
    calls = Calls()
    answering({"run": calls.run, "create": calls.create, "answer": calls.answer})


if __name__ == "__main__":
    main()
