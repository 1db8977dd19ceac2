"""The adapter and its informer during outages, in virtual time.

The API server is simulated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError, Conflict, Forbidden, Throttled, Unreachable
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, KubernetesObject
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values import resources
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import Stopwatch, poll_until

JsonObject = dict[str, Any]


def _config_map(name: str, text: str = "0") -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"i": text},
    }


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[SimulatedCluster, ClusterClient]]:
    async with SimulatedCluster(nodes=1) as cluster:
        client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="far")
        try:
            yield cluster, client
        finally:
            await client.close()


class _Followed:
    """A running informer, and the failures that it has reported."""

    def __init__(self, client: ClusterClient) -> None:
        self.failures: list[ClusterError] = []
        self.informer: Informer[KubernetesObject] = Informer(
            client, CONFIG_MAPS, "", lambda old, new: None, self.failures.append, namespace="default"
        )

    def knows(self, name: str, version: str) -> bool:
        """Returns whether the object is known in this version."""
        found = self.informer.objects.get(("default", name))
        return found is not None and found.metadata.resource_version == version

    async def until_known(self, name: str, version: str, seconds: float) -> None:
        """Waits for the version; raises AssertionError if it is not known after `seconds`."""

        async def known() -> bool:
            return self.knows(name, version)

        await poll_until(known, seconds=seconds, what=f"version {version} of {name}")


@asynccontextmanager
async def _following(client: ClusterClient) -> AsyncIterator[_Followed]:
    followed = _Followed(client)
    task = asyncio.create_task(followed.informer.run())
    await followed.informer.synced.wait()
    try:
        yield followed
    finally:
        await cancel_and_wait(task)


def _create(cluster: SimulatedCluster, name: str) -> str:
    return str(cluster.store.create(resources.CONFIG_MAPS, _config_map(name))["metadata"]["resourceVersion"])


@virtual_time
async def test_changes_during_an_outage_are_known_soon_after_it() -> None:
    async with _connected() as (cluster, client), _following(client) as followed:
        _create(cluster, "before")
        await cluster.api_server.kill()
        version = _create(cluster, "meanwhile")
        await pass_time(20)
        assert not followed.knows("meanwhile", version)
        assert followed.failures
        assert {type(error) for error in followed.failures} == {Unreachable}
        await cluster.api_server.start_again()
        await followed.until_known("meanwhile", version, 10)


@virtual_time
async def test_silent_watches_are_resumed_when_they_end() -> None:
    async with _connected() as (cluster, client), _following(client) as followed:
        await cluster.api_server.terminate()
        version = _create(cluster, "meanwhile")
        await pass_time(50)
        assert not followed.knows("meanwhile", version)
        await cluster.api_server.start_again()
        await followed.until_known("meanwhile", version, 20)


@virtual_time
async def test_a_watch_of_a_server_too_busy_for_bookmarks_is_not_cut() -> None:
    async with _connected() as (cluster, client):
        cluster.faults.too_busy_for_bookmarks = True
        async with _following(client) as followed:
            await pass_time(600)
            assert followed.failures == []
            version = _create(cluster, "after")
            await followed.until_known("after", version, 5)


@virtual_time
async def test_a_permanently_silent_watch_is_abandoned_after_its_due_end() -> None:
    async with _connected() as (cluster, client), _following(client) as followed:
        cluster.faults.storage_stalled = True
        version = _create(cluster, "meanwhile")
        await pass_time(client.limits.watch_idle_seconds - 5)
        assert followed.failures == []
        await pass_time(120)
        assert not followed.knows("meanwhile", version)
        assert {type(error) for error in followed.failures} == {Unreachable}
        cluster.faults.storage_stalled = False
        await followed.until_known("meanwhile", version, 60)


@virtual_time
async def test_denials_of_a_starting_server_end_within_seconds() -> None:
    async with _connected() as (cluster, _):
        rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        cluster.users.add("bound", "bound", rules)
        kubeconfig = cluster.kubeconfig()
        kubeconfig["users"][0]["user"]["token"] = "bound"
        client = await ClusterClient.from_kubeconfig(kubeconfig, name="far")
        try:
            async with _following(client) as followed:
                await cluster.api_server.kill()
                version = _create(cluster, "meanwhile")
                await cluster.api_server.start_again(roles_seconds=1.5)
                with pytest.raises(Forbidden) as denied:
                    await client.list(CONFIG_MAPS)
                assert denied.value.permission == "list configmaps"
                await followed.until_known("meanwhile", version, 15)
        finally:
            await client.close()


@virtual_time
async def test_an_apply_with_a_lost_response_is_repeated_without_a_change() -> None:
    async with _connected() as (cluster, client):
        cluster.faults.lose_answers(1)
        with pytest.raises(Unreachable) as lost:
            await client.apply(CONFIG_MAPS, _config_map("a"))
        assert lost.value.outlook == "passing"
        stored = cluster.store.get(resources.CONFIG_MAPS, "default", "a")
        assert stored is not None
        again = await client.apply(CONFIG_MAPS, _config_map("a"))
        assert again.metadata.uid == stored["metadata"]["uid"]
        assert again.metadata.resource_version == stored["metadata"]["resourceVersion"]


@virtual_time
async def test_a_repeated_deletion_after_a_lost_response_finds_nothing() -> None:
    async with _connected() as (cluster, client):
        made = await client.apply(CONFIG_MAPS, _config_map("a"))
        cluster.faults.lose_answers(1)
        with pytest.raises(Unreachable):
            await client.delete(CONFIG_MAPS, "default", "a", uid=made.metadata.uid)
        assert await client.delete(CONFIG_MAPS, "default", "a", uid=made.metadata.uid) is False
        # The object was created again by another caller, and must not be deleted.
        await client.apply(CONFIG_MAPS, _config_map("a"))
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAPS, "default", "a", uid=made.metadata.uid)


@virtual_time
async def test_calls_end_at_their_deadline_while_storage_stalls() -> None:
    async with _connected() as (cluster, client):
        await client.apply(CONFIG_MAPS, _config_map("a"))
        cluster.faults.storage_stalled = True
        waited = Stopwatch()
        with pytest.raises(Unreachable):
            await client.apply(CONFIG_MAPS, _config_map("a", "1"))
        assert waited.passed() == pytest.approx(client.limits.request_seconds, abs=1.1)
        cluster.faults.storage_stalled = False
        assert (await client.apply(CONFIG_MAPS, _config_map("a", "2"))).metadata.name == "a"


@virtual_time
async def test_the_retry_delay_of_a_server_is_reported() -> None:
    async with _connected() as (cluster, client):
        cluster.faults.retry_after_seconds = 7
        cluster.faults.fail_next(1, 429)
        with pytest.raises(Throttled) as throttled:
            await client.list(CONFIG_MAPS)
        assert throttled.value.retry_after_seconds == 7
