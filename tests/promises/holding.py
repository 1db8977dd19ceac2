"""Callers that occupy all they can get.

They hold streams, calls without their request, and calls that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.calling import Outcome, failed

# Makes each channel a connection of its own: by default, channels to one address share a connection.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

Hold = Callable[[grpc.aio.Channel], Any]


def never_sent(method: str, metadata: Sequence[tuple[str, str]] = ()) -> Hold:
    """Returns a call of a unary method whose request never arrives."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    def open_call(channel: Any) -> Any:
        return channel.stream_unary(method)(nothing(), metadata=tuple(metadata))

    return open_call


def held(rule: Rule, request: Message, metadata: Sequence[tuple[str, str]]) -> Hold:
    """Returns a call that continues until the server ends it."""
    body = request.SerializeToString()
    return lambda channel: getattr(channel, rule.shape)(rule.method)(body, metadata=tuple(metadata))


def health_watch(channel: Any) -> Any:
    """Opens a watch of the server's health."""
    body = health_pb2.HealthCheckRequest().SerializeToString()
    return channel.unary_stream(HEALTH_WATCH)(body)


async def _until_ended(call: Any) -> Outcome:
    try:
        if isinstance(call, grpc.aio.Call) and hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return failed(error)
    return Outcome("OK")


@asynccontextmanager
async def connections(address: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Yields channels with a connection each."""
    channels = [grpc.aio.insecure_channel(address, options=_OWN_CONNECTION) for _ in range(count)]
    try:
        yield channels
    finally:
        for channel in channels:
            await channel.close()


@asynccontextmanager
async def holding(
    channels: Sequence[grpc.aio.Channel], holds: Sequence[Hold], count: int
) -> AsyncIterator[list[asyncio.Task[Outcome]]]:
    """Makes `count` calls of each kind, until the end of the block.

    The calls are spread over the channels. Yields the tasks, which return how each call ended.
    """
    tasks = [
        asyncio.create_task(_until_ended(hold(channels[(at + number) % len(channels)])))
        for at, hold in enumerate(holds)
        for number in range(count)
    ]
    try:
        yield tasks
    finally:
        await cancel_and_wait(*tasks)


async def is_healthy(channel: grpc.aio.Channel, timeout: float) -> str:
    """Returns SERVING, or the other status or error code."""
    stub: Any = health_pb2_grpc.HealthStub(cast("Any", channel))
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
