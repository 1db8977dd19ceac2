"""Deletion: propagation policies, grace periods and namespaces, as recorded and by their documented rules."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
)
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, check, replay
from tests.simulator.workloads import (
    condition,
    deployment,
    exists,
    is_complete,
    pods_of,
    poll_cluster,
    replica_sets_of,
    stored,
)
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_DELETION = "03f-deployment-delete"
# Reads sent a millisecond after the deletion.
_RACING = frozenset({16, 20, 26})


@virtual_time
async def test_deletion_is_as_recorded() -> None:
    async with recorded_cluster(8, stop=1.2, remove=0.9) as cluster:
        differences = await replay(cluster, _DELETION, Options(varying=NODE_VALUES, racing=_RACING))
    check(_DELETION, differences)


async def _rolled_out(cluster: SimulatedCluster, replicas: int = 2) -> None:
    cluster.store.create(DEPLOYMENTS, deployment("web", replicas))
    await poll_cluster(cluster, lambda: is_complete(cluster, "web"))


@virtual_time
async def test_background_deletion_removes_the_owner_first() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _rolled_out(cluster)
        subscription = cluster.store.subscribe()
        assert cluster.store.delete(DEPLOYMENTS, "default", "web", propagation_policy="Background") is None
        assert not exists(cluster, DEPLOYMENTS, "web")
        assert len(replica_sets_of(cluster, "web")) == 1
        await poll_cluster(cluster, lambda: not cluster.store.list(PODS, "default"))
        order = [event.resource for event in await subscription.next_batch() if event.type == "DELETED"]
        subscription.close()
        owners = [resource for resource in order if resource in (DEPLOYMENTS, REPLICA_SETS, PODS)]
        assert owners == [DEPLOYMENTS, REPLICA_SETS, PODS, PODS]


@virtual_time
async def test_foreground_deletion_removes_dependents_first() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _rolled_out(cluster)
        subscription = cluster.store.subscribe()
        left = cluster.store.delete(DEPLOYMENTS, "default", "web", propagation_policy="Foreground")
        assert left is not None
        assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
        await poll_cluster(cluster, lambda: not exists(cluster, DEPLOYMENTS, "web"))
        order = [event.resource for event in await subscription.next_batch() if event.type == "DELETED"]
        subscription.close()
        owners = [resource for resource in order if resource in (DEPLOYMENTS, REPLICA_SETS, PODS)]
        assert owners == [PODS, PODS, REPLICA_SETS, DEPLOYMENTS]


@virtual_time
async def test_orphans_are_left_and_adopted_again() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _rolled_out(cluster)
        pods = {entry["metadata"]["uid"] for entry in pods_of(cluster, "web")}
        cluster.store.delete(DEPLOYMENTS, "default", "web", propagation_policy="Orphan")
        await poll_cluster(cluster, lambda: not exists(cluster, DEPLOYMENTS, "web"))
        assert "ownerReferences" not in replica_sets_of(cluster, "web")[0]["metadata"]
        await _rolled_out(cluster)
        assert {entry["metadata"]["uid"] for entry in pods_of(cluster, "web")} == pods
        assert len(replica_sets_of(cluster, "web")) == 1


@virtual_time
async def test_dependents_without_a_remaining_owner_are_collected() -> None:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "gone"}
    foreign = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "owner", "uid": "unknown"}
    async with SimulatedCluster(speed=20) as cluster:
        for name, owner in (("lost", reference), ("foreign", foreign)):
            metadata = {"name": name, "namespace": "default", "ownerReferences": [owner]}
            cluster.store.create(CONFIG_MAPS, {"metadata": metadata})
        await poll_cluster(cluster, lambda: not exists(cluster, CONFIG_MAPS, "lost"))
        # An owner of a kind that the cluster does not serve may exist.
        assert exists(cluster, CONFIG_MAPS, "foreign")


@virtual_time
async def test_a_reference_to_a_deleted_owner_is_removed() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        owners = [
            cluster.store.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}})
            for name in ("first", "second")
        ]
        references = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
            for owner in owners
        ]
        metadata = {"name": "shared", "namespace": "default", "ownerReferences": references}
        cluster.store.create(CONFIG_MAPS, {"metadata": metadata})
        cluster.store.delete(CONFIG_MAPS, "default", "first")

        def owners_left() -> list[str]:
            shared = stored(cluster, CONFIG_MAPS, "shared")["metadata"]
            return [reference["name"] for reference in shared["ownerReferences"]]

        await poll_cluster(cluster, lambda: owners_left() == ["second"])
        cluster.store.delete(CONFIG_MAPS, "default", "second")
        await poll_cluster(cluster, lambda: not exists(cluster, CONFIG_MAPS, "shared"))


@virtual_time
async def test_a_namespace_is_deleted_with_its_content() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "short"}})
        await poll_cluster(
            cluster, lambda: cluster.store.get(SERVICE_ACCOUNTS, "short", "default") is not None
        )
        assert cluster.store.get(CONFIG_MAPS, "short", "kube-root-ca.crt") is not None
        body = deployment("web", 2)
        body["metadata"]["namespace"] = "short"
        cluster.store.create(DEPLOYMENTS, body)
        await poll_cluster(cluster, lambda: len(cluster.store.list(PODS, "short")) == 2)
        await poll_cluster(
            cluster, lambda: all(entry["status"]["phase"] == "Running" for entry in cluster.store.list(PODS))
        )
        left = cluster.store.delete(NAMESPACES, None, "short")
        assert left is not None
        assert left["status"]["phase"] == "Terminating"
        await poll_cluster(cluster, lambda: cluster.store.get(NAMESPACES, None, "short") is None)
        assert not any(obj["metadata"].get("namespace") == "short" for _, obj in cluster.store.objects())


@virtual_time
async def test_a_namespace_reports_which_finalizer_holds_it() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "held"}})
        metadata = {"name": "stays", "namespace": "held", "finalizers": ["example.com/hold"]}
        cluster.store.create(CONFIG_MAPS, {"metadata": metadata})
        cluster.store.delete(NAMESPACES, None, "held")

        def held() -> JsonObject:
            found = cluster.store.get(NAMESPACES, None, "held")
            return condition(found, "NamespaceFinalizersRemaining") if found else {}

        await poll_cluster(cluster, lambda: held().get("status") == "True")
        assert "example.com/hold in 1 resource instances" in held()["message"]
        released = cluster.store.get(CONFIG_MAPS, "held", "stays")
        assert released is not None
        cluster.store.update(
            CONFIG_MAPS, {**released, "metadata": {**released["metadata"], "finalizers": []}}
        )
        await poll_cluster(cluster, lambda: cluster.store.get(NAMESPACES, None, "held") is None)


@virtual_time
async def test_the_default_service_account_is_recreated() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await poll_cluster(cluster, lambda: exists(cluster, SERVICE_ACCOUNTS, "default"))
        uid = stored(cluster, SERVICE_ACCOUNTS, "default")["metadata"]["uid"]
        cluster.store.delete(SERVICE_ACCOUNTS, "default", "default")
        await poll_cluster(cluster, lambda: exists(cluster, SERVICE_ACCOUNTS, "default"))
        assert stored(cluster, SERVICE_ACCOUNTS, "default")["metadata"]["uid"] != uid


@virtual_time
async def test_the_life_of_namespaces_is_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(cluster, "02-namespaces")
    check("02-namespaces", differences)
