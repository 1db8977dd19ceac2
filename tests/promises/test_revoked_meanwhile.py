"""A right that is revoked during a unary call is not used by the call.

This holds however long the call takes. The call waits between the lookup of its caller and its end: for its
body or for a lock, as other calls wait for a cluster or a hash.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from prometheus_client import REGISTRY

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.rpc.interceptors import authorization
from tests.conftest import Database, connection, number_changes
from tests.harness import Server, running_server
from tests.waiting import poll_until

UPDATE = "/pilothouse.namespace.v1.NamespaceService/UpdateNamespace"
# Calls connect with this role; periodic work connects with another one.
WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND usename LIKE '%app' AND wait_event_type = 'Lock'"
)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, AsyncClient]]:
    """Yields a server with a namespace, and the user who operates it.

    The user may also set its quota. Every call counts as one that took long.
    """
    monkeypatch.setattr(authorization, "LATE_SECONDS", 0.0)
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=pb.Namespace(name="shop"))
        await server.admin.identity.create_role(
            role=identity_pb2.Role(name="quotas", permissions=["namespace.quota"])
        )
        dora = await server.user("dora", {"shop": "operator", "": "quotas"})
        await server.admin.identity.grant_role(username="dora", role="viewer", namespace="shop")
        assert await dora.identity.check_permission(permission="namespace.update", namespace="shop")
        yield server, dora


@asynccontextmanager
async def locked(server: Server) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Blocks every change of the namespace until the end of the block.

    Yields a function that returns the number of blocked calls.
    """
    async with (
        connection(server.database.admin_dsn) as sql,
        connection(server.database.admin_dsn) as looking,
        sql.transaction(),
    ):
        await sql.execute("SELECT FROM namespaces WHERE name = 'shop' FOR NO KEY UPDATE")
        yield lambda: looking.fetchval(WAITING)


async def revoke(server: Server, dora: AsyncClient, role: str, namespace: str, permission: str) -> None:
    """Revokes a grant; returns once the server has noticed it.

    Lookups that run during the revocation return the remaining grants.
    """
    await server.admin.identity.revoke_role(username="dora", role=role, namespace=namespace)

    async def lost() -> bool:
        return not await dora.identity.check_permission(permission=permission, namespace="shop")

    await poll_until(lost)


async def regrant(server: Server, dora: AsyncClient, role: str, namespace: str, permission: str) -> None:
    await server.admin.identity.grant_role(username="dora", role=role, namespace=namespace)

    async def holds() -> bool:
        return await dora.identity.check_permission(permission=permission, namespace="shop")

    await poll_until(holds)


def change(client: AsyncClient, description: str = "mine") -> asyncio.Task[Any]:
    fields: dict[str, Any] = {"description": description, "resource_quota": pb.ResourceQuota(containers=99)}
    return asyncio.create_task(
        client.namespaces.update(
            name="shop", namespace=pb.Namespace(**fields), update_mask=FieldMask(paths=list(fields))
        )
    )


async def described(server: Server) -> tuple[str, int]:
    found = await server.admin.namespaces.get(name="shop")
    return found.description, found.resource_quota.containers


async def test_a_revoked_right_is_not_used(shop: tuple[Server, AsyncClient]) -> None:
    server, dora = shop
    await _the_right_to_the_call(server, dora)
    await regrant(server, dora, "operator", "shop", "namespace.update")
    await _a_right_that_guards_a_part_of_it(server, dora)
    await regrant(server, dora, "quotas", "", "namespace.quota")
    await _a_body_that_comes_after_the_right_is_gone(server, dora)
    await regrant(server, dora, "operator", "shop", "namespace.update")
    await _what_was_only_added_is_in_nobodys_way(server, dora)
    await _a_session_that_has_ended(server, dora)
    # The permitted change is the only one.
    assert await described(server) == ("mine", 99)


async def _the_right_to_the_call(server: Server, dora: AsyncClient) -> None:
    async with locked(server) as waiting:
        call = change(dora)
        await poll_until(waiting)
        await revoke(server, dora, "operator", "shop", "namespace.update")
    with pytest.raises(PilothouseError) as refused:
        await call
    assert (refused.value.code.name, refused.value.reason) == ("PERMISSION_DENIED", "PERMISSION_REVOKED")
    assert await described(server) == ("", 0)
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
        code = await sql.fetchval(
            "SELECT error_code FROM operation_logs WHERE username = 'dora' AND request_path = $1", UPDATE
        )
    assert code == "PERMISSION_DENIED"


async def _a_right_that_guards_a_part_of_it(server: Server, dora: AsyncClient) -> None:
    async with locked(server) as waiting:
        call = change(dora)
        await poll_until(waiting)
        await revoke(server, dora, "quotas", "", "namespace.quota")
    with pytest.raises(PilothouseError) as refused:
        await call
    assert (refused.value.code.name, refused.value.reason) in (
        ("ABORTED", "CONCURRENT_CHANGE"),
        # The code if the client has retried.
        ("PERMISSION_DENIED", "PERMISSION_DENIED"),
    )
    assert await described(server) == ("", 0)


async def _a_session_that_has_ended(server: Server, dora: AsyncClient) -> None:
    async with locked(server) as waiting:
        call = change(dora, "again")
        await poll_until(waiting)
        await server.admin.identity.update_user(
            username="dora",
            user=identity_pb2.User(status=identity_pb2.USER_STATUS_INACTIVE),
            update_mask=FieldMask(paths=["status"]),
        )

        async def ended() -> bool:
            try:
                await dora.identity.who_am_i()
            except PilothouseError:
                return True
            return False

        await poll_until(ended)
    with pytest.raises(PilothouseError) as refused:
        await call
    assert refused.value.code.name == "UNAUTHENTICATED"


async def _a_body_that_comes_after_the_right_is_gone(server: Server, dora: AsyncClient) -> None:
    token = await server.token("dora")
    go = asyncio.Event()
    request = pb.UpdateNamespaceRequest(
        name="shop", namespace=pb.Namespace(description="mine"), update_mask=FieldMask(paths=["description"])
    )

    async def body() -> AsyncIterator[bytes]:
        await go.wait()
        yield request.SerializeToString()

    def awaited() -> float:
        return REGISTRY.get_sample_value("pilothouse_admission_waiting", {"class": "requests"}) or 0.0

    method: Any = server.channel().stream_unary(UPDATE)
    call = method(body(), metadata=(("authorization", f"Bearer {token}"),))

    async def is_awaited() -> bool:
        return awaited() > 0

    await poll_until(is_awaited)
    await revoke(server, dora, "operator", "shop", "namespace.update")
    go.set()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await described(server) == ("", 0)


async def _what_was_only_added_is_in_nobodys_way(server: Server, dora: AsyncClient) -> None:
    async with locked(server) as waiting:
        call = change(dora)
        await poll_until(waiting)
        await server.admin.identity.grant_role(username="dora", role="developer", namespace="shop")

        async def gained() -> bool:
            held = await dora.identity.who_am_i()
            return any(grant.role == "developer" for grant in held.grants)

        await poll_until(gained)
    assert (await call).description == "mine"


async def test_a_read_that_loses_one_grant_continues_by_the_remaining_grants(
    shop: tuple[Server, AsyncClient],
) -> None:
    server, dora = shop
    async with (
        connection(server.database.admin_dsn) as sql,
        connection(server.database.admin_dsn) as looking,
        sql.transaction(),
    ):
        await sql.execute("LOCK TABLE containers IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(dora.containers.get(namespace="shop", name="none"))
        listing = asyncio.create_task(_listed(dora))

        async def waiting() -> int:
            return int(await looking.fetchval(WAITING))

        await poll_until(waiting, lambda count: count == 2)
        # The role of a viewer permits both calls to continue.
        await revoke(server, dora, "operator", "shop", "namespace.update")
    assert await listing == 0
    with pytest.raises(PilothouseError) as refused:
        await reading
    assert refused.value.code.name == "NOT_FOUND"


async def _listed(client: AsyncClient) -> int:
    return len([each async for each in client.containers.list(namespace="shop")])


@pytest.mark.full
async def test_without_the_second_check_a_revoked_right_is_used(
    shop: tuple[Server, AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control."""
    server, dora = shop
    monkeypatch.setattr(authorization, "LATE_SECONDS", math.inf)
    async with locked(server) as waiting:
        call = change(dora)
        await poll_until(waiting)
        await revoke(server, dora, "operator", "shop", "namespace.update")
    await call
    assert await described(server) == ("mine", 99)
