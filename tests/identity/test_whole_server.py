"""Identity in the complete product: the effects of a revocation.

A reused name restores no permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1.api_keys_pb2 import ServiceAccount
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import (
    NotFoundError,
    PermissionDeniedError,
    PilothouseError,
    UnauthenticatedError,
)
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient, poll_until


@pytest_asyncio.fixture(loop_scope="session")
async def whole(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """Yields a complete server with a simulated cluster."""
    async with running_server(database, tmp_path) as started:
        yield started


async def _namespace(whole: Server, name: str) -> None:
    await whole.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))


async def _is_gone(whole: Server, name: str) -> bool:
    try:
        await whole.admin.namespaces.get(name=name)
    except NotFoundError:
        return True
    return False


async def test_a_recreated_namespace_has_none_of_the_old_grants(whole: Server) -> None:
    await _namespace(whole, "shop")
    anna = await whole.user("anna", {"shop": "admin"})
    await anna.namespaces.get(name="shop")
    await anna.identity.create_service_account(namespace="shop", service_account=ServiceAccount(name="ci"))
    await anna.identity.grant_role(username="sa:shop:ci", role="viewer", namespace="shop")
    made = await anna.identity.create_api_key(name="ci", service_account="sa:shop:ci")
    kept = await whole.admin.identity.create_api_key(name="shop alone", namespaces=["shop"])
    await whole.admin.namespaces.delete(name="shop")
    await poll_until(lambda: _is_gone(whole, "shop"))
    await _namespace(whole, "shop")
    async with AsyncClient(whole.address, token=made.key) as robot:
        with pytest.raises(UnauthenticatedError):
            await robot.identity.who_am_i()
    assert [each async for each in whole.admin.identity.list_service_accounts()] == []
    async with AsyncClient(whole.address, token=kept.key) as narrow:
        with pytest.raises(NotFoundError):
            await narrow.namespaces.get(name="shop")
    with pytest.raises(NotFoundError):
        await anna.namespaces.get(name="shop")
    assert not (await anna.identity.who_am_i()).grants


async def test_a_revoked_grant_ends_an_open_watch_within_five_seconds(whole: Server) -> None:
    await _namespace(whole, "shop")
    anna = await whole.user("anna", {"shop": "viewer"})
    synced = asyncio.Event()

    async def follow() -> None:
        async for _change in anna.containers.watch(namespace="shop"):
            synced.set()

    watcher = asyncio.create_task(follow())
    await asyncio.wait_for(synced.wait(), patient(10))
    await whole.admin.identity.revoke_role(username="anna", role="viewer", namespace="shop")
    with pytest.raises(PilothouseError) as caught:
        await asyncio.wait_for(watcher, patient(5))
    assert isinstance(caught.value, PermissionDeniedError)


async def _watching(client: AsyncClient) -> asyncio.Task[None]:
    """Returns a task with a watch of namespaces that has begun."""
    synced = asyncio.Event()

    async def follow() -> None:
        async for _change in client.namespaces.watch():
            synced.set()

    watcher = asyncio.create_task(follow())
    await asyncio.wait_for(synced.wait(), patient(10))
    return watcher


@pytest.mark.full
async def test_watches_end_when_a_key_is_revoked_or_a_user_is_locked(whole: Server) -> None:
    anna = await whole.user("anna", {"": "viewer"})
    made = await anna.identity.create_api_key(name="ci")
    async with AsyncClient(whole.address, token=made.key) as by_key:
        watches = [await _watching(by_key), await _watching(anna)]
        await anna.identity.revoke_api_key(api_key_id=made.api_key.api_key_id)
        with pytest.raises(UnauthenticatedError):
            await asyncio.wait_for(watches[0], patient(5))
        assert not watches[1].done()
    await whole.admin.identity.update_user(
        username="anna", user=pb.User(status=pb.USER_STATUS_LOCKED), update_mask=FieldMask(paths=["status"])
    )
    with pytest.raises(PilothouseError):
        await asyncio.wait_for(watches[1], patient(5))
