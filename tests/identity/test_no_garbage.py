"""The memory of a call is freed when it ends, without the garbage collector.

A server rarely collects cycles (`process_tuning`). An error refers to the frames that it passed through, and
these frames refer to the call. When the call also referred to the error, each refused call left 12 KB, as
often as an anonymous caller liked.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from types import FrameType
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.flowcontrol.token_bucket import KeyedRate
from pilothouse_server.rpc.pipeline import Pipeline
from tests.garbage import without_looks
from tests.identity.server import SERVICE, Caller, IdentityServer, refused
from tests.waiting import poll_until

_CALLS = 10
# The number of calls that tasks of the server may still refer to.
_HELD = 2


@pytest.fixture
def _without_looks() -> Iterator[None]:
    with without_looks():
        yield


def _kept() -> int:
    """Returns how many frames of ended calls are still in memory."""
    serving = Pipeline._serve.__code__
    return sum(isinstance(each, FrameType) and each.f_code is serving for each in gc.get_objects())


def _waiting(server: IdentityServer) -> Callable[[], Awaitable[int]]:
    """Returns a function that counts the calls that wait for their requests."""

    async def look() -> int:
        return server.admission.pending_requests.waiting

    return look


@pytest.mark.usefixtures("_without_looks")
@pytest.mark.parametrize(
    "ends",
    ["refused", "refused unheard", "not permitted", "not found", "malformed", "given up", "cut off"],
)
async def test_an_ended_call_leaves_no_garbage(shared: IdentityServer, root: Caller, ends: str) -> None:
    for _ in range(_CALLS):
        await _ending(shared, root, ends)

    async def kept() -> int:
        return _kept()

    await poll_until(kept, lambda frames: frames <= _HELD, seconds=10)


@pytest.mark.usefixtures("_without_looks")
@pytest.mark.parametrize("who", ["layer", "handler"])
async def test_a_refusal_with_its_reason_leaves_no_garbage(
    shared: IdentityServer, root: Caller, who: str
) -> None:
    caller = await shared.user(root, f"garbage-{who}")
    about = pb.CheckPermissionRequest(permission="image.get", username="admin")
    for _ in range(_CALLS):
        if who == "layer":
            refusal = await refused(caller, "ListUsers", pb.ListUsersRequest())
        else:
            refusal = await refused(caller, "CheckPermission", about)
        assert refusal.metadata["why"] == "NO_GRANT"

    async def kept() -> int:
        return _kept()

    await poll_until(kept, lambda frames: frames <= _HELD, seconds=10)


async def _ending(server: IdentityServer, root: Caller, ends: str) -> None:
    if ends == "refused":
        await refused(Caller(server.stub, "not a token"), "WhoAmI", pb.WhoAmIRequest())
    elif ends == "refused unheard":
        await _unheard(server)
    elif ends == "not found":
        await refused(root, "GetUser", pb.GetUserRequest(username="nobody"))
    elif ends == "malformed":
        await refused(root, "GetUser", pb.GetUserRequest(username="a" * 51))
    elif ends == "not permitted":
        await refused(root, "RevokeSession", pb.RevokeSessionRequest(session_id=str(uuid4())))
    else:
        await _left(server, gives_up=ends == "given up")


class _Refusals(KeyedRate):
    """Counts the refusals that arrive."""

    came = 0

    async def acquire(self, key: Hashable) -> None:
        self.came += 1
        await super().acquire(key)

    async def count(self) -> int:
        return self.came


async def _unheard(server: IdentityServer) -> None:
    """Cancels a call whose refusal waits for its turn."""
    refusals = _Refusals(0.001, 1, 1e9)
    refusing, server.admission.refusals = server.admission.refusals, refusals
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            method: Any = channel.unary_unary(f"/{SERVICE.full_name}/WhoAmI")
            metadata = (("authorization", "Bearer no token"),)
            # The first refusal is sent immediately.
            with pytest.raises(grpc.aio.AioRpcError):
                await method(b"", metadata=metadata)
            call = method(b"", metadata=metadata)
            await poll_until(refusals.count, lambda count: count == 2, seconds=10)
            call.cancel()
            await poll_until(lambda: _in_flight(server), lambda count: count == 0, seconds=10)
    finally:
        server.admission.refusals = refusing


async def _in_flight(server: IdentityServer) -> int:
    return server.admission.in_flight


async def _left(server: IdentityServer, *, gives_up: bool) -> None:
    """Makes a login whose request never arrives.

    The caller cancels the login, or closes the connection.
    """

    async def silence() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with grpc.aio.insecure_channel(server.address) as channel:
        method: Any = channel.stream_unary(f"/{SERVICE.full_name}/Login")
        call = method(silence())
        await poll_until(_waiting(server), seconds=10)
        if gives_up:
            call.cancel()
    await poll_until(_waiting(server), lambda count: count == 0, seconds=10)
