"""Clusters with a client certificate, their own authority or a proxy.

They are registered by the API and used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import RetryPolicy, errors
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.api.server_certificate import Authority
from tests.clusters.given import (
    QUICK,
    another_cluster,
    by_kubeconfig,
    encoded,
    has_status,
    kubeconfig,
    place,
)
from tests.clusters.proxy import proxy
from tests.conftest import Database
from tests.harness import Server, running_server

ONCE = RetryPolicy(attempts=1)


@pytest_asyncio.fixture(loop_scope="session")
async def serving(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(
        database, tmp_path, with_cluster=False, reconciler=QUICK, cluster_timeout_seconds=5.0
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with another_cluster(tls=True) as running:
        yield running


async def is_used(server: Server, name: str) -> None:
    """Creates a container on the cluster, reads its log and executes a program in it."""
    await place(server, name, "shop")
    assert (await has_status(server, name, pb.CLUSTER_STATUS_HEALTHY)).api_server.startswith("https://")
    logs = server.admin.containers.stream_logs(namespace="shop", name="web", follow=False)
    async with logs as lines:
        async for _ in lines:
            continue
    start = containers.ExecStart(namespace="shop", name="web", command=["echo", "here"])
    out = b""
    async with server.admin.containers.exec([containers.ExecRequest(start=start)]) as answers:
        async for answer in answers:
            out += answer.stdout
    assert out == b"here\n"


async def test_a_cluster_with_client_certificate_and_own_authority_is_used(
    serving: Server, cluster: SimulatedCluster
) -> None:
    certificate, key = cluster.authority.client_certificate("pilothouse")
    cluster.users.add_certificate("pilothouse")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    answer = await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="certified"), credentials=by_kubeconfig(kubeconfig(cluster, **user))
    )
    # The certificate's expiry is known, and its key does not appear in the response.
    ends = answer.cluster.credentials_expire_time.ToDatetime(UTC)
    assert ends > datetime.now(UTC) + timedelta(hours=1)
    assert b"PRIVATE KEY" not in answer.SerializeToString()
    await is_used(serving, "certified")


async def test_a_certificate_of_another_authority_is_reported(
    serving: Server, cluster: SimulatedCluster
) -> None:
    document = kubeconfig(cluster)
    stranger = Authority("127.0.0.1").certificate
    document["clusters"][0]["cluster"]["certificate-authority-data"] = encoded(stranger)
    with pytest.raises(errors.UnavailableError) as refused:
        await serving.admin.with_options(retry=ONCE).namespaces.register_cluster(
            cluster=pb.Cluster(name="strange"), credentials=by_kubeconfig(document)
        )
    assert "not trusted" in refused.value.message
    listed = [found.name async for found in serving.admin.namespaces.list_clusters()]
    assert "strange" not in listed


async def test_a_cluster_behind_a_proxy_is_used(serving: Server, cluster: SimulatedCluster) -> None:
    async with proxy() as (address, asked):
        document = kubeconfig(cluster)
        document["clusters"][0]["cluster"]["proxy-url"] = address
        await serving.admin.namespaces.register_cluster(
            cluster=pb.Cluster(name="behind"), credentials=by_kubeconfig(document)
        )
        await is_used(serving, "behind")
        assert set(asked) == {f"CONNECT {cluster.url.removeprefix('https://')}"}
