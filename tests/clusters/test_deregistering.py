"""Deregistering a cluster: refused while it is in use, orphaning or deleting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import errors
from pilothouse_client.streams import ChangeKind
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import DEPLOYMENTS, NAMESPACES, PODS
from tests.clusters.given import QUICK, another_cluster, place, register
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient, poll_until

ORPHAN, DELETE = pb.DEREGISTERED_OBJECTS_ORPHAN, pb.DEREGISTERED_OBJECTS_DELETE


@pytest_asyncio.fixture(loop_scope="session")
async def serving(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(database, tmp_path, with_cluster=False, reconciler=QUICK) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with another_cluster() as running:
        yield running


def names(cluster: SimulatedCluster, resource: object, namespace: str | None) -> set[str]:
    """Returns the names of the objects of a kind on the cluster."""
    objects = cluster.store.list(resource, namespace)  # type: ignore[arg-type]
    return {each["metadata"]["name"] for each in objects}


async def is_gone(server: Server, name: str) -> bool:
    return name not in [each.name async for each in server.admin.namespaces.list_clusters()]


async def test_deregistering_a_cluster_in_use_is_refused_with_counts(
    serving: Server, cluster: SimulatedCluster
) -> None:
    await register(serving, "second", cluster)
    await place(serving, "second", "shop")
    with pytest.raises(errors.FailedPreconditionError) as refused:
        await serving.admin.namespaces.deregister_cluster(name="second")
    assert refused.value.reason == "CLUSTER_NOT_EMPTY"
    assert refused.value.metadata == {"namespaces": "1", "containers": "1"}
    with pytest.raises(errors.FailedPreconditionError) as refused:
        await serving.admin.namespaces.deregister_cluster(name="local")
    assert refused.value.reason == "CLUSTER_CONFIGURED"
    with pytest.raises(errors.NotFoundError):
        await serving.admin.namespaces.deregister_cluster(name="nowhere")
    # A call with `validate_only` deregisters nothing.
    answer = await serving.admin.namespaces.deregister_cluster(
        name="second", objects=ORPHAN, validate_only=True
    )
    assert answer.namespaces == 1
    assert (await serving.admin.containers.get(namespace="shop", name="web")).name == "web"


async def test_orphaned_objects_stay_on_the_cluster_permanently(
    serving: Server, cluster: SimulatedCluster
) -> None:
    registered = await register(serving, "second", cluster)
    await place(serving, "second", "shop")
    await serving.admin.config.create_config_map(
        namespace="shop", config_map=config_pb2.ConfigMap(name="settings", data={"a": "b"})
    )
    pods = names(cluster, PODS, "shop")
    synced, ended = asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        async for change in serving.admin.containers.watch():
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            if change.kind is ChangeKind.DELETED and change.resource.name == "web":
                ended.set()
                return

    watching = asyncio.create_task(follow())
    await asyncio.wait_for(synced.wait(), patient(20))
    answer = await serving.admin.namespaces.deregister_cluster(name="second", objects=ORPHAN)
    assert answer.namespaces == 1
    await asyncio.wait_for(ended.wait(), patient(20))
    await watching
    assert await is_gone(serving, "second")
    assert not [each async for each in serving.admin.namespaces.list()]
    async with serving.database.owner() as sql:
        assert await sql.fetchval("SELECT count(*) FROM reconcile_work") == 0
        row = await sql.fetchrow("SELECT * FROM clusters WHERE name = 'second'")
        assert (row["credentials"], row["data_key"], row["key_id"]) == (None, None, None)
    # The cluster's name and the namespaces' names can be used again.
    again = await register(serving, "second", cluster)
    assert again.uid != registered.uid
    await serving.admin.namespaces.create(
        namespace=pb.Namespace(name="shop", cluster_name="second"), adopt=True
    )

    async def adopted() -> bool:
        return (await serving.admin.namespaces.get(name="shop")).phase == "Active"

    await poll_until(adopted)
    # The sweep runs: it deletes an unowned object that was created for this namespace, but not the orphaned
    # ones.
    (left,) = cluster.store.list(DEPLOYMENTS, "shop")
    (home,) = (each for each in cluster.store.list(NAMESPACES, None) if each["metadata"]["name"] == "shop")
    labels = left["metadata"]["labels"] | {NAMESPACE_UID: home["metadata"]["labels"][NAMESPACE_UID]}
    metadata = {"name": "stray", "namespace": "shop", "labels": labels}
    cluster.store.create(DEPLOYMENTS, {"metadata": metadata, "spec": left["spec"]})

    async def swept() -> bool:
        return "stray" not in names(cluster, DEPLOYMENTS, "shop")

    await poll_until(swept, seconds=60.0)
    assert names(cluster, DEPLOYMENTS, "shop") == {"web"}
    assert names(cluster, PODS, "shop") >= pods


async def test_objects_are_deleted_before_the_cluster_is_deregistered(
    serving: Server, cluster: SimulatedCluster
) -> None:
    await register(serving, "second", cluster)
    await place(serving, "second", "shop")
    answer = await serving.admin.namespaces.deregister_cluster(name="second", objects=DELETE)
    assert answer.cluster.status == pb.CLUSTER_STATUS_DEREGISTERING
    with pytest.raises(errors.PilothouseError) as refused:
        await serving.admin.namespaces.create(namespace=pb.Namespace(name="late", cluster_name="second"))
    assert refused.value.reason in ("CLUSTER_DEREGISTERING", "CLUSTER_NOT_FOUND")
    await poll_until(lambda: is_gone(serving, "second"), seconds=60.0)
    assert "shop" not in names(cluster, NAMESPACES, None)
    assert not [each async for each in serving.admin.namespaces.list()]


async def test_an_unreachable_cluster_can_be_deregistered(serving: Server, cluster: SimulatedCluster) -> None:
    await register(serving, "second", cluster)
    await place(serving, "second", "shop")
    cluster.faults.refuse_connections = True
    cluster.faults.drop_watches()
    await serving.admin.namespaces.deregister_cluster(name="second", objects=DELETE)

    async def is_away() -> bool:
        found = await serving.admin.namespaces.get_cluster(name="second")
        return found.HasField("stale_since") and found.status == pb.CLUSTER_STATUS_DEREGISTERING

    await poll_until(is_away, seconds=60.0)
    await serving.admin.namespaces.deregister_cluster(name="second", objects=ORPHAN)
    assert await is_gone(serving, "second")
    assert names(cluster, DEPLOYMENTS, "shop") == {"web"}
