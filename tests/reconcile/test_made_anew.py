"""A new container is not put into a namespace that somebody else made again, even before a server observes that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES
from pilothouse_server.reconcile.apply import namespace_reconciler
from pilothouse_server.reconcile.repository import container_status
from tests.reconcile.environment import Environment
from tests.reconcile.test_kills import next_server
from tests.waiting import poll_until

ANEW = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


async def made_anew(here: Environment, client: ClusterClient) -> None:
    """Deletes the Kubernetes namespace and makes one of the same name, as another client."""
    there = await client.get(NAMESPACES, None, "shop")
    await client.delete(NAMESPACES, None, "shop", uid=there.metadata.uid)
    await poll_until(lambda: client.find(NAMESPACES, None, "shop"), lambda found: found is None)
    await here.apply_as("team-b", "/api/v1/namespaces/shop", ANEW)


async def settled(here: Environment) -> None:
    await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)


async def is_refused(here: Environment, client: ClusterClient) -> bool:
    """Returns whether the container reports that its namespace is somebody else's, and nothing was put there."""

    def told(row: Container) -> bool:
        return any(each.reason in ("NameTaken", "LabelLost") for each in row.observed.conditions)

    row = await here.until(lambda row: told(row) or bool(row.observed_generation))
    return told(row) and (await client.list(DEPLOYMENTS, "shop")).items == ()


async def test_a_container_is_refused_while_no_server_observes(here: Environment) -> None:
    client = await here.connect("local")
    await here.namespace()
    async with next_server(here, client):
        await settled(here)
    await made_anew(here, client)
    await here.create()
    async with next_server(here, client):
        assert await is_refused(here, client)


async def test_a_container_is_refused_while_the_namespace_is_reconciled(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await here.connect("local")
    looked = asyncio.Event()

    async def hang(*_: Any) -> None:
        looked.set()
        await asyncio.Event().wait()

    async with here.reconciling():
        await here.namespace()
        await settled(here)
        monkeypatch.setattr(namespace_reconciler, "_apply", hang)
        await made_anew(here, client)
        await looked.wait()
        await here.create()
        assert await is_refused(here, client)


async def test_a_container_is_refused_when_its_work_is_retried(here: Environment) -> None:
    """The work may have waited for long, and the observer may not have seen the new namespace in that time."""
    client = await here.connect("local")
    await here.namespace()
    async with next_server(here, client):
        await settled(here)
    await here.watched()
    await here.create()
    await here.rows("UPDATE reconcile_work SET attempts = 1 WHERE resource_type = 'container'")
    await made_anew(here, client)
    async with next_server(here, client):
        assert await is_refused(here, client)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE leases SET owner = NULL WHERE name = 'observe/local'",
        "UPDATE leases SET expires_at = now() - interval '1 second' WHERE name = 'observe/local'",
        "UPDATE namespaces SET phase = 'Terminating'",
        "UPDATE reconcile_work SET due_at = now() WHERE resource_type = 'namespace'",
        "UPDATE reconcile_work SET attempts = 1 WHERE resource_type = 'namespace'",
        "UPDATE reconcile_work SET lease_owner = 'x', leased_until = now() + interval '1 minute' "
        "WHERE resource_type = 'namespace'",
    ],
    ids=["given up", "run out", "ends", "due", "failed", "in hand"],
)
async def test_the_namespace_is_unverified_when_its_owner_may_have_changed(
    here: Environment, change: str
) -> None:
    await here.namespace()
    async with next_server(here, await here.connect("local")):
        await settled(here)
    # The server may have leased the work again before it ended.
    await here.rows(
        "UPDATE reconcile_work SET lease_owner = NULL, leased_until = NULL, attempts = 0, "
        "due_at = now() + interval '1 hour' WHERE resource_type = 'namespace'"
    )
    await here.watched()
    made = await here.create()

    async def is_doubted() -> bool:
        async with here.store.system_look() as transaction:
            found = await container_status.find_placed(transaction, [int(made.id)])
        return found[int(made.id)].namespace_unverified

    assert not await is_doubted()
    await here.rows(change)
    assert await is_doubted()
    # Objects that were applied there before are read in any case.
    await here.rows("UPDATE containers SET observed_generation = 1")
    assert not await is_doubted()
