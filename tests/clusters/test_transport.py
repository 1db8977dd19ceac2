"""How a cluster is reached: authorities, client certificates, proxies, the token of a pod that is renewed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
import yaml

from pilothouse_server.kubernetes import connection, credentials
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import NotTrusted, Unauthorized
from pilothouse_server.kubernetes.objects import NAMESPACES
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.api.server_certificate import Authority
from tests.clusters.given import another_cluster, encoded, kubeconfig
from tests.clusters.proxy import proxy


@pytest_asyncio.fixture(loop_scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with another_cluster(tls=True) as running:
        yield running


@asynccontextmanager
async def connected(document: dict[str, Any]) -> AsyncIterator[ClusterClient]:
    """A client by a kubeconfig that came from a caller, as it would be stored."""
    kept = credentials.decode(credentials.encode(credentials.from_kubeconfig(yaml.safe_dump(document))))
    client = await ClusterClient.from_kubeconfig(kept.kubeconfig(), name="x")
    try:
        yield client
    finally:
        await client.close()


async def test_the_authority_of_the_kubeconfig_is_trusted(cluster: SimulatedCluster) -> None:
    async with connected(kubeconfig(cluster)) as client:
        assert (await client.list(NAMESPACES)).items


async def test_an_address_with_its_authority_is_enough(cluster: SimulatedCluster) -> None:
    authority = cluster.authority.certificate.decode()
    kept = credentials.from_address(cluster.url, cluster.token, authority=authority)
    client = await ClusterClient.from_kubeconfig(kept.kubeconfig(), name="x")
    try:
        assert (await client.list(NAMESPACES)).items
    finally:
        await client.close()


@pytest.mark.parametrize("authority", [Authority("127.0.0.1").certificate, None])
async def test_a_server_that_nobody_vouches_for_gets_no_token(
    cluster: SimulatedCluster, authority: bytes | None
) -> None:
    document = kubeconfig(cluster)
    entry = document["clusters"][0]["cluster"]
    del entry["certificate-authority-data"]
    if authority is not None:
        entry["certificate-authority-data"] = encoded(authority)
    async with connected(document) as client:
        with pytest.raises(NotTrusted) as refused:
            await client.version()
    assert "is not trusted" in refused.value.message
    assert cluster.token not in refused.value.message


async def test_a_client_certificate_is_let_in(cluster: SimulatedCluster) -> None:
    certificate, key = cluster.authority.client_certificate("pilothouse")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    async with connected(kubeconfig(cluster, **user)) as client:
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACES)
    cluster.users.add_certificate("pilothouse")
    async with connected(kubeconfig(cluster, **user)) as client:
        assert (await client.list(NAMESPACES)).items


async def test_a_proxy_is_gone_through(cluster: SimulatedCluster) -> None:
    async with proxy() as (address, asked):
        document = kubeconfig(cluster)
        document["clusters"][0]["cluster"]["proxy-url"] = address
        async with connected(document) as client:
            assert (await client.list(NAMESPACES)).items
    assert asked == [f"CONNECT {cluster.url.removeprefix('https://')}"]


async def test_a_token_file_is_read_again_when_it_is_renewed(
    cluster: SimulatedCluster, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TOKEN_FILE_PERIOD_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("first")
    cluster.users.add("first", "pilothouse")
    document = kubeconfig(cluster)
    document["users"][0]["user"] = {"tokenFile": str(file)}
    client = await ClusterClient.from_kubeconfig(document, name="x", allow_files=True)
    try:
        assert (await client.list(NAMESPACES)).items
        cluster.users.remove("first")
        cluster.users.add("second", "pilothouse")
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACES)
        file.write_text("second\n")
        assert (await client.list(NAMESPACES)).items
    finally:
        await client.close()
