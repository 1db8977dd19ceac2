"""Applies, prunes and rollbacks while the cluster is unavailable: later database, log, revisions and cluster agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.applications.conftest import (
    JsonObject,
    Place,
    budget,
    claim,
    config_map,
    deployment,
    secret,
    service,
)
from tests.reconcile.unseen import agreeing
from tests.waiting import poll_until

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.errors import AbortedError
from pilothouse_simulator.values.resources import PODS, SERVICE_ACCOUNTS

pytestmark = pytest.mark.full
_LAST = 25


def _documents(number: int) -> list[JsonObject]:
    """Returns the documents of a version. The last version omits half of them."""
    kept = [config_map(level=f"{number}"), claim(), deployment(image=f"nginx:1.{number}")]
    more = [secret(word=f"{number}"), service(), budget(), deployment("api")]
    return kept if number == _LAST else [*kept, *more]


@pytest.fixture
def away(place: Place) -> Iterator[None]:
    """Ends the cluster's refusal of connections after the test."""
    yield
    place.cluster.faults.refuse_connections = False


async def _healthy(place: Place) -> bool:
    return (await place.get()).status == pb.APPLICATION_STATUS_HEALTHY


async def _apply(place: Place, number: int, *, prune: bool = False) -> None:
    """Applies a version. Retries while another apply is in progress."""

    async def applied() -> bool:
        try:
            await place.apply(_documents(number), prune=prune, take_over=True)
        except AbortedError:
            return False
        return True

    await poll_until(applied, what=f"version {number} is applied")


async def test_pods_wait_for_the_service_account_of_their_documents(place: Place, away: None) -> None:
    robot = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    web = deployment()
    web["spec"]["template"]["spec"]["serviceAccountName"] = "robot"

    async def waits() -> bool:
        found = await place.client.containers.get(namespace=place.name, name="web")
        return any(each.reason == "WaitingForConfiguration" for each in found.conditions)

    await place.apply([config_map()])
    await poll_until(lambda: _healthy(place), seconds=20.0, what="the namespace is there")
    place.cluster.faults.refuse_connections = True
    await place.apply([web, robot])
    await poll_until(waits, seconds=20.0, what="the container waits for its account")
    place.cluster.faults.refuse_connections = False
    await poll_until(lambda: _healthy(place), seconds=60.0, what="the application is healthy")
    account = place.cluster.store.get(SERVICE_ACCOUNTS, place.name, "robot")
    assert account is not None
    assert "automountServiceAccountToken" not in account
    pods = place.cluster.store.list(PODS, place.name)
    assert len(pods) == 1
    # The account mounts its token, as an account created by `kubectl apply` does.
    assert any("projected" in volume for volume in pods[0]["spec"].get("volumes", ()))


async def test_a_returning_cluster_receives_the_newest_revision(place: Place, away: None) -> None:
    await _apply(place, 20)
    await poll_until(lambda: _healthy(place), seconds=20.0, what="the first revision is healthy")
    place.cluster.faults.refuse_connections = True
    place.cluster.faults.drop_watches()
    for numbers in ((21, 22), (23, 24)):
        await asyncio.gather(*(_apply(place, number) for number in numbers))
        await place.client.applications.rollback(namespace=place.name, name="shop")
    # From here on, the names of pruned objects stay taken until the cluster has deleted the objects.
    await _apply(place, _LAST, prune=True)
    revisions = [
        each async for each in place.client.applications.list_revisions(namespace=place.name, name="shop")
    ]
    assert [each.number for each in revisions] == list(range(8, 0, -1))
    assert [each.number for each in revisions if each.origin] == [7, 4]
    records = [
        each.operation_id
        async for each in place.client.audit.list_operations(
            namespace=place.name, filter='resource_type = "application" AND result = SUCCESS'
        )
    ]
    assert {each.operation_id for each in revisions} <= set(records)
    place.cluster.faults.refuse_connections = False
    await poll_until(lambda: _healthy(place), seconds=60.0, what="the newest revision is healthy")
    await agreeing(place.server, seconds=30.0)
    found = await place.get()
    assert not any(each.modified for each in found.members)
    newest = await place.client.applications.get_revision(namespace=place.name, name="shop")
    assert json.loads(newest.documents[0]) == config_map(level="25")
    settings = await place.client.config.get_config_map(namespace=place.name, name="settings")
    assert dict(settings.data) == {"level": "25"}
    containers = [each.name async for each in place.client.containers.list(namespace=place.name)]
    assert containers == ["web"]
