"""Streams belong to a session, not to one of its access tokens.

They outlive tokens, and end with the session.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import identity_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2, namespace_pb2_grpc
from pilothouse.resource.v1 import resource_pb2
from tests.harness import PASSWORD, Server, running_server
from tests.identity.server import Refused
from tests.waiting import patient, within


class Session:
    """A session of the administrator."""

    def __init__(self, server: Server) -> None:
        self.tokens: Any = None
        channel = server.channel()
        # The asynchronous stubs are types only; at run time there is one class for both.
        self.identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        self.namespaces: Any = namespace_pb2_grpc.NamespaceServiceStub(channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call with the current access token."""
        return (("authorization", f"Bearer {self.tokens.access_token}"),)

    async def watch(self) -> Watch:
        """Opens a watch with the current access token, and waits until it has begun."""
        watch = Watch(
            self.namespaces.WatchNamespaces(
                namespace_pb2.WatchNamespacesRequest(), metadata=self.metadata, timeout=patient(30.0)
            )
        )
        await watch.synced()
        return watch

    async def log_in(self) -> Session:
        """Begins the session."""
        self.tokens = await self.identity.Login(pb.LoginRequest(username="admin", password=PASSWORD))
        return self

    async def refresh(self) -> None:
        """Exchanges the refresh token for new tokens."""
        request = pb.RefreshSessionRequest(refresh_token=self.tokens.refresh_token)
        self.tokens = await self.identity.RefreshSession(request)

    async def refused(self) -> str:
        """Returns why the access token is refused, or '' if it is not."""
        try:
            await self.identity.WhoAmI(pb.WhoAmIRequest(), metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            return Refused(error).reason
        return ""

    async def log_out(self) -> None:
        """Ends the session."""
        await self.identity.Logout(pb.LogoutRequest(), metadata=self.metadata)


class Watch:
    """An open watch."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def synced(self) -> None:
        """Reads until the first state is complete."""
        async with within(10.0):
            while (await self._call.read()).change_type != resource_pb2.CHANGE_TYPE_SYNCED:
                pass

    async def lives(self, server: Server) -> None:
        """Fails unless a new change arrives."""
        name = f"made-{uuid4().hex[:8]}"
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name, display_name=name))
        async with within(10.0):
            while (await self._call.read()).namespace.name != name:
                pass

    async def end(self) -> str:
        """Reads to the end, which must come in the promised five seconds; returns why."""
        try:
            async with within(5.0):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
                await self._call.wait_for_connection()
        except grpc.aio.AioRpcError as error:
            return Refused(error).reason
        return ""


async def _looked_at(server: Server) -> None:
    """Returns once the server has checked the open streams again.

    By then it has ended the streams of ended sessions.
    """
    other = await Session(server).log_in()
    watch = await other.watch()
    await other.log_out()
    assert await watch.end() == "INVALID_TOKEN"


async def test_a_stream_outlives_its_access_token(shared_server: Server) -> None:
    session = await Session(shared_server).log_in()
    watch = await session.watch()
    async with shared_server.database.system() as connection:
        await connection.execute(
            "UPDATE sessions SET access_expires_at = now() WHERE access_token_hash = sha256($1::text::bytea)",
            session.tokens.access_token,
        )
    await _looked_at(shared_server)
    assert await session.refused() == "INVALID_TOKEN"
    await watch.lives(shared_server)
    # The session itself expires, and the server receives no hint.
    async with shared_server.database.system() as connection:
        await connection.execute(
            "UPDATE sessions SET refresh_expires_at = now() WHERE access_token_hash = sha256($1::text::bytea)",
            session.tokens.access_token,
        )
    assert await watch.end() == "INVALID_TOKEN"


async def test_a_refresh_keeps_the_streams_of_its_session(shared_server: Server) -> None:
    session = await Session(shared_server).log_in()
    first = await session.watch()
    await session.refresh()
    second = await session.watch()
    await _looked_at(shared_server)
    await first.lives(shared_server)
    await session.log_out()
    assert [await watch.end() for watch in (first, second)] == ["INVALID_TOKEN"] * 2


async def test_streams_of_a_session_continue_and_end_on_another_replica(
    shared_server: Server, tmp_path: Path
) -> None:
    session = await Session(shared_server).log_in()
    async with running_server(shared_server.database, tmp_path, with_cluster=False) as replica:
        there = Session(replica)
        there.tokens = session.tokens
        watch = await there.watch()
        await session.refresh()
        await _looked_at(replica)
        await watch.lives(shared_server)
        await session.log_out()
        async with within(5.0):
            assert await watch.end() == "INVALID_TOKEN"


async def test_a_replayed_refresh_token_ends_the_streams_of_its_session(shared_server: Server) -> None:
    session = await Session(shared_server).log_in()
    watch, former = await session.watch(), session.tokens
    await session.refresh()
    session.tokens = former
    with pytest.raises(grpc.aio.AioRpcError):
        await session.refresh()
    assert await watch.end() == "INVALID_TOKEN"
