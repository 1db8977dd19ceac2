"""Connections to a cluster: authorities, client certificates, proxies, tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from pilothouse_server.kubernetes import connection, credentials
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import NotTrusted, Unauthorized, Unreachable
from pilothouse_server.kubernetes.exec import program
from pilothouse_server.kubernetes.objects import NAMESPACES
from pilothouse_server.outbound import destinations
from pilothouse_server.outbound.destinations import ANYWHERE, Reach
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
    """Yields a client of a caller's kubeconfig, encoded and decoded as in storage."""
    kept = credentials.decode(credentials.encode(credentials.from_kubeconfig(yaml.safe_dump(document))))
    client = await ClusterClient.from_kubeconfig(kept.kubeconfig(), name="x")
    try:
        yield client
    finally:
        await client.close()


async def test_the_authority_of_the_kubeconfig_is_trusted(cluster: SimulatedCluster) -> None:
    async with connected(kubeconfig(cluster)) as client:
        assert (await client.list(NAMESPACES)).items


async def test_an_address_with_its_authority_is_sufficient(cluster: SimulatedCluster) -> None:
    authority = cluster.authority.certificate.decode()
    kept = credentials.from_address(cluster.url, cluster.token, authority=authority)
    client = await ClusterClient.from_kubeconfig(kept.kubeconfig(), name="x")
    try:
        assert (await client.list(NAMESPACES)).items
    finally:
        await client.close()


@pytest.mark.parametrize("authority", [Authority("127.0.0.1").certificate, None])
async def test_an_untrusted_server_gets_no_token(cluster: SimulatedCluster, authority: bytes | None) -> None:
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


async def test_a_server_is_used_without_verification_if_configured(cluster: SimulatedCluster) -> None:
    document = kubeconfig(cluster)
    entry = document["clusters"][0]["cluster"]
    del entry["certificate-authority-data"]
    entry["insecure-skip-tls-verify"] = True
    async with connected(document) as client:
        assert (await client.list(NAMESPACES)).items


async def test_the_tls_server_name_also_applies_to_exec(cluster: SimulatedCluster) -> None:
    document = kubeconfig(cluster)
    document["clusters"][0]["cluster"]["tls-server-name"] = "another.example"
    async with connected(document) as client:
        with pytest.raises(NotTrusted):
            await client.list(NAMESPACES)
        with pytest.raises(NotTrusted):
            async with program(
                client, "default", "pod", container="main", command=["true"], stdin=False, tty=False
            ):
                pass


async def test_a_client_certificate_authenticates(cluster: SimulatedCluster) -> None:
    certificate, key = cluster.authority.client_certificate("pilothouse")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    async with connected(kubeconfig(cluster, **user)) as client:
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACES)
    cluster.users.add_certificate("pilothouse")
    async with connected(kubeconfig(cluster, **user)) as client:
        assert (await client.list(NAMESPACES)).items


async def test_files_of_the_operators_kubeconfig_are_used(cluster: SimulatedCluster, tmp_path: Path) -> None:
    document = kubeconfig(cluster)
    certificate, key = cluster.authority.client_certificate("pilothouse")
    cluster.users.add_certificate("pilothouse")
    told = {
        "certificate-authority": cluster.authority.certificate,
        "client-certificate": certificate,
        "client-key": key,
    }
    files = {name: str(tmp_path / name) for name in told}
    for name, content in told.items():
        (tmp_path / name).write_bytes(content)
    entry = document["clusters"][0]["cluster"]
    del entry["certificate-authority-data"]
    entry["certificate-authority"] = files.pop("certificate-authority")
    document["users"][0]["user"] = files
    client = await ClusterClient.from_kubeconfig(document, name="x", allow_files=True)
    try:
        assert (await client.list(NAMESPACES)).items
    finally:
        await client.close()


async def test_a_proxy_is_used(cluster: SimulatedCluster) -> None:
    async with proxy() as (address, asked):
        document = kubeconfig(cluster)
        document["clusters"][0]["cluster"]["proxy-url"] = address
        async with connected(document) as client:
            assert (await client.list(NAMESPACES)).items
    assert asked == [f"CONNECT {cluster.url.removeprefix('https://')}"]


@pytest.mark.parametrize(
    ("server", "proxy_url", "why"),
    [
        (
            "https://cluster.invalid",
            "http://proxy.invalid:3128",
            "the proxy in front of it: its name cannot be resolved",
        ),
        (
            "https://cluster.invalid",
            "http://127.0.0.1:1",
            "the proxy in front of it: the connection is refused",
        ),
        ("https://cluster.invalid", "", "its name cannot be resolved"),
        ("https://127.0.0.1:1", "", "the connection is refused"),
    ],
)
async def test_an_unreachable_proxy_is_named_in_the_message(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch, server: str, proxy_url: str, why: str
) -> None:
    document = kubeconfig(cluster)
    document["clusters"][0]["cluster"] |= {"server": server, "proxy-url": proxy_url}
    async with connected(document) as client:
        with pytest.raises(Unreachable) as unreachable:
            await client.list(NAMESPACES)
    assert unreachable.value.message.endswith(f"cannot be reached: {why}")
    # The proxy is recognised in any spelling of its address.
    assert destinations._leads_to("https://[0:0::1]:1", "::1")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Removes the proxies and the .netrc file of this machine from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    return monkeypatch


@pytest.mark.parametrize(
    ("exempt", "through"), [("", True), ("127.0.0.1", False), ("*", False), ("elsewhere.example", True)]
)
async def test_a_proxy_of_the_environment_is_used_unless_the_cluster_is_exempt(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch, exempt: str, through: bool
) -> None:
    async with proxy() as (address, asked):
        bare_environment.setenv("HTTPS_PROXY", address)
        bare_environment.setenv("NO_PROXY", exempt)
        async with connected(kubeconfig(cluster)) as client:
            assert (await client.list(NAMESPACES)).items
    assert asked == ([f"CONNECT {cluster.url.removeprefix('https://')}"] if through else [])


async def test_the_proxy_of_the_kubeconfig_has_precedence(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch
) -> None:
    async with proxy() as (address, asked), proxy() as (other, asked_other):
        bare_environment.setenv("HTTPS_PROXY", other.replace("//", "//user:password@"))
        document = kubeconfig(cluster)
        document["clusters"][0]["cluster"]["proxy-url"] = address
        async with connected(document) as client:
            assert (await client.list(NAMESPACES)).items
    assert (len(asked), asked_other) == (1, [])


@pytest.mark.parametrize("target", ["https", "http"])
async def test_proxy_credentials_are_sent_as_a_header(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch, target: str
) -> None:
    """The library receives the proxy's address without the credentials.

    The address comes from the kubeconfig or from the environment.
    """
    for of_the_environment in (False, True):
        async with proxy() as (address, asked):
            document = kubeconfig(cluster)
            named = address.replace("//", "//some%40body:pass@")
            entry = document["clusters"][0]["cluster"]
            entry["server"] = cluster.url if target == "https" else "http://cluster.example:1"
            if of_the_environment:
                bare_environment.setenv(f"{target.upper()}_PROXY", named)
            else:
                entry["proxy-url"] = named
            async with connected(document) as client:
                configuration = client._transport._api.configuration
                given = configuration.proxy_headers["Proxy-Authorization"]
                assert given == aiohttp.encode_basic_auth("some@body", "pass")
                assert configuration.proxy == address
                by_itself = configuration.session_options.get("headers", {}).get("Proxy-Authorization")
                assert by_itself == (given if target == "http" else None)
                if target == "https":
                    assert (await client.list(NAMESPACES)).items
                    assert len(asked) == 1


async def test_the_environment_is_read_once_for_each_client(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch
) -> None:
    async with connected(kubeconfig(cluster)) as client:
        bare_environment.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        assert (await client.list(NAMESPACES)).items


async def test_a_token_has_precedence_over_the_password_in_netrc(
    cluster: SimulatedCluster, bare_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    bare_environment.setenv("NETRC", str(netrc))
    async with connected(kubeconfig(cluster)) as client:
        assert (await client.list(NAMESPACES)).items


def test_a_client_without_a_token_uses_the_password_in_netrc(
    bare_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine cluster.example login somebody password secret\n")
    bare_environment.setenv("NETRC", str(netrc))

    options = connection.session_options
    found = options("https://cluster.example:6443", netrc=True)
    assert found["headers"] == {"Authorization": aiohttp.encode_basic_auth("somebody", "secret")}
    assert "headers" not in options("https://cluster.example:6443", netrc=False)
    assert "headers" not in options("https://other.example:6443", netrc=True)


@asynccontextmanager
async def hearing() -> AsyncIterator[tuple[str, list[str | None]]]:
    """Runs a cluster that returns its version without authentication.

    Yields its address, and the credential of each request.
    """
    heard: list[str | None] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(request.headers.get("Authorization"))
        return web.json_response({"gitVersion": "v1.36.0"})

    application = web.Application()
    application.router.add_get("/version", hear)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", heard
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("reach", "shown"), [(ANYWHERE, True), (Reach([ip_network("127.0.0.0/8")]), False)])
async def test_passwords_in_netrc_are_not_sent_to_addresses_of_callers(
    bare_environment: pytest.MonkeyPatch, tmp_path: Path, reach: Reach, shown: bool
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    bare_environment.setenv("NETRC", str(netrc))
    async with hearing() as (address, heard):
        document = credentials.ClusterCredentials({"server": address})
        client = await ClusterClient.from_kubeconfig(document.kubeconfig(), name="x", reach=reach)
        try:
            await client.version()
        finally:
            await client.close()
    assert heard == [aiohttp.encode_basic_auth("somebody", "secret") if shown else None]


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ({"username": "somebody", "password": "secret"}, aiohttp.encode_basic_auth("somebody", "secret")),
        ({"username": "somebody", "password": "secret", "token": "a-token"}, "Bearer a-token"),
        ({"username": "somebody"}, None),
        ({}, None),
    ],
)
async def test_credentials_of_the_operators_kubeconfig_are_sent(
    bare_environment: pytest.MonkeyPatch, user: dict[str, str], shown: str | None
) -> None:
    async with hearing() as (address, heard):
        document = credentials.ClusterCredentials({"server": f"{address}/"}, user).kubeconfig()
        client = await ClusterClient.from_kubeconfig(document, name="x", allow_files=True)
        try:
            await client.version()
        finally:
            await client.close()
    assert heard == [shown]


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
