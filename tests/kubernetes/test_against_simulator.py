"""The adapter and the simulated cluster together.

The tests cover the whole lifetime of a container by the client's calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from pilothouse_server.containers import manifests
from pilothouse_server.containers.dry_run import dry_run_container
from pilothouse_server.containers.model import Container, Port
from pilothouse_server.containers.observation import Observation, observe
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import InternalError, Invalid
from pilothouse_server.kubernetes.exec import program
from pilothouse_server.kubernetes.objects import (
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    KubernetesObject,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, MANAGED_BY, MANAGED_SELECTOR
from pilothouse_server.kubernetes.usage import usage_by_container
from pilothouse_server.namespaces.manifests import namespace_manifest
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.values.resources import NamespaceId, NamespaceRef
from pilothouse_simulator import SimulatedCluster
from tests.kubernetes.containers import container, replicas_of
from tests.waiting import poll_until, within

SHOP = Namespace(id=NamespaceId(1), uid="shop-uid", name="shop", kubernetes_name="shop", cluster_name="local")


@pytest_asyncio.fixture(loop_scope="session")
async def simulated() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(speed=10) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def client(simulated: SimulatedCluster) -> AsyncIterator[ClusterClient]:
    client = await ClusterClient.from_kubeconfig(simulated.kubeconfig(), name="local")
    await client.apply(NAMESPACES, namespace_manifest(SHOP))
    yield client
    await client.close()


async def observed(client: ClusterClient, subject: Container) -> Observation:
    selector = f"{CONTAINER_UID}={subject.uid}"
    return observe(
        subject,
        await client.find(DEPLOYMENTS, "shop", subject.kubernetes_name),
        (await client.list(REPLICA_SETS, "shop", label_selector=selector)).items,
        (await client.list(PODS, "shop", label_selector=selector)).items,
        now=datetime.now(UTC),
    )


async def seen_as(client: ClusterClient, subject: Container, status: str) -> Observation:
    return await poll_until(lambda: observed(client, subject), lambda seen: seen.observed.status == status)


async def test_a_container_is_created_scaled_stopped_and_deleted(client: ClusterClient) -> None:
    subject = container(replicas=2, ports=(Port(container_port=80, service_name="web", service_port=80),))
    applied = await client.apply(DEPLOYMENTS, manifests.workload(subject, held=True))
    await client.set_scale(DEPLOYMENTS, "shop", "web", 2)
    again = await client.apply(DEPLOYMENTS, manifests.workload(subject, replicas_set=2))
    (service,) = manifests.services(subject)
    await client.apply(SERVICES, service)
    running = await seen_as(client, subject, "running")
    assert running.observed.ready_replicas == 2
    assert running.observed.pod_ip
    assert await replicas_of(client) == 2

    unchanged = await client.apply(DEPLOYMENTS, manifests.workload(subject, replicas_set=2))
    assert unchanged.metadata.generation == again.metadata.generation
    assert unchanged.spec.replicas == 2

    stopped = container(replicas=2, desired_state="stopped")
    await client.set_scale(DEPLOYMENTS, "shop", "web", 0)
    await poll_until(
        lambda: observed(client, stopped), lambda seen: not seen.pods and not seen.observed.reason
    )

    assert await client.delete(DEPLOYMENTS, "shop", "web", uid=applied.metadata.uid)
    await poll_until(lambda: client.find(DEPLOYMENTS, "shop", "web"), lambda found: found is None)
    assert not await client.delete(DEPLOYMENTS, "shop", "web", uid=applied.metadata.uid)


async def test_a_program_cannot_run_on_a_node_without_its_kubelet(
    simulated: SimulatedCluster, client: ClusterClient
) -> None:
    subject = container()
    await client.apply(DEPLOYMENTS, manifests.workload(subject), force=True)
    seen = (await seen_as(client, subject, "running")).observed
    (pod,) = (await client.list(PODS, "shop")).items
    simulated.kubelets.stop(pod.spec.node_name)
    with pytest.raises(InternalError, match="node of the pod does not respond"):
        async with program(
            client, "shop", seen.pod_name, container="main", command=["true"], stdin=False, tty=False
        ):
            pass


async def test_a_watch_continues_a_list(client: ClusterClient) -> None:
    before = await client.list(PODS, label_selector=MANAGED_SELECTOR)
    watch = client.watch(PODS, resource_version=before.resource_version, label_selector=MANAGED_SELECTOR)
    async with within(20), aclosing(watch):
        await client.apply(DEPLOYMENTS, manifests.workload(container()))
        types = []
        async for event in watch:
            types.append(event.type)
            if any(status.ready for status in event.object.status.container_statuses):
                break
    assert types[0] == "ADDED"
    assert set(types[1:]) == {"MODIFIED"}


async def test_usage_is_read_from_every_node(client: ClusterClient) -> None:
    subject = container()
    await client.apply(DEPLOYMENTS, manifests.workload(subject))
    seen = await seen_as(client, subject, "running")
    nodes = (await client.list(NODES)).items
    summaries = [await client.node_stats(node.metadata.name) for node in nodes]
    (usage,) = await usage_by_container(
        summaries, {pod.uid: subject.id for pod in seen.pods}, datetime.now(UTC)
    )
    assert usage.key == subject.id
    assert usage.memory_bytes > 0


async def test_a_dry_run_stores_nothing(client: ClusterClient) -> None:
    shown = await client.dry_run(DEPLOYMENTS, manifests.workload(container()))
    assert shown["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.27"
    assert await client.find(DEPLOYMENTS, "shop", "web") is None


def test_managed_objects_are_found_by_one_selector() -> None:
    value = KubernetesObject()
    assert value.metadata.label(MANAGED_BY) == ""
    key, _, wanted = MANAGED_SELECTOR.partition("=")
    assert manifests.workload(container())["metadata"]["labels"][key] == wanted


async def test_a_dry_run_returns_the_objects_or_the_refusal(
    client: ClusterClient,
) -> None:
    port = Port(container_port=80, service_name="web", service_port=80)
    shown = await dry_run_container(client, container(ports=(port,)))
    assert [thing["kind"] for thing in shown] == ["Deployment", "Service"]
    elsewhere = container(namespace_ref=NamespaceRef(kubernetes_name="nowhere"))
    assert await dry_run_container(client, elsewhere) == []
    with pytest.raises(Invalid) as refused:
        await dry_run_container(client, container(image=""))
    assert any("image" in cause.field for cause in refused.value.causes)
    assert await client.find(DEPLOYMENTS, "shop", "web") is None
