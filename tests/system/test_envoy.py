"""`deploy/envoy.yaml` fulfils the requirements of docs/security.md for a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from pilothouse.namespace.v1 import namespace_pb2, namespace_pb2_grpc
from pilothouse_client import AsyncClient, Tls
from tests.conftest import Database
from tests.gateway.browser import RULES, Ended, framed, read_all
from tests.harness import PASSWORD
from tests.system.envoy import PROXY, behind_envoy, manager, rate_limit
from tests.waiting import patient, within

pytestmark = pytest.mark.system


@asynccontextmanager
async def namespaces(
    address: str, tls: Tls
) -> AsyncIterator[tuple[namespace_pb2_grpc.NamespaceServiceAsyncStub, str]]:
    """Yields a stub that sends its arguments unchanged, and the authorization of an administrator."""
    async with AsyncClient(address, tls=tls) as client:
        token = (await client.login("admin", PASSWORD)).access_token
    credentials = grpc.ssl_channel_credentials(tls.root_certificates)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        yield namespace_pb2_grpc.NamespaceServiceStub(channel), f"Bearer {token}"


async def listed(
    stub: namespace_pb2_grpc.NamespaceServiceAsyncStub, authorization: str, *more: tuple[str, str]
) -> tuple[grpc.StatusCode, str]:
    """Returns the status of a call, and the name of the error details' trailer if the server sent it."""
    call = stub.ListNamespaces(
        namespace_pb2.ListNamespacesRequest(),
        metadata=(("authorization", authorization), *more),
        timeout=patient(30),
    )
    code = await call.code()
    details = dict(await call.trailing_metadata() or ())
    return code, "grpc-status-details-bin" if "grpc-status-details-bin" in details else ""


async def test_calls_and_watches_pass_with_the_address_of_the_client(
    database: Database, tmp_path: Path
) -> None:
    async with (
        behind_envoy(database, tmp_path) as (server, address, tls),
        AsyncClient(address, username="admin", password=PASSWORD, tls=tls) as client,
        namespaces(address, tls) as (stub, authorization),
    ):
        await client.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        async with within(30), client.namespaces.watch() as watched:
            async for event in watched:
                if event.resource.name == "shop":
                    break
        # Envoy appends the address that it sees: a client cannot claim another address.
        forged = ("x-forwarded-for", "203.0.113.7")
        assert await listed(stub, authorization, forged) == (grpc.StatusCode.OK, "")
        seen = {record.client_ip async for record in server.admin.audit.list_operations()}
        # Envoy sends an address of its machine in place of a loopback address.
        assert seen.isdisjoint({"203.0.113.7", PROXY})
        assert seen - {"", "127.0.0.1"}


@pytest.mark.parametrize(
    ("kilobytes", "ends"), [(None, False), (4, True)], ids=["as deployed", "a lower bound"]
)
async def test_a_header_beyond_the_proxys_bound_ends_a_call(
    database: Database, tmp_path: Path, kilobytes: int | None, ends: bool
) -> None:
    def lower(config: dict[str, Any]) -> None:
        if kilobytes is not None:
            manager(config)["max_request_headers_kb"] = kilobytes

    async with (
        behind_envoy(database, tmp_path, lower) as (_, address, tls),
        namespaces(address, tls) as (stub, authorization),
    ):
        code, _ = await listed(stub, authorization, ("x-note", "a" * 6 * 1024))
        assert (code != grpc.StatusCode.OK) is ends
        code, details = await listed(stub, authorization, ("x-note", "a" * 32 * 1024))
        assert code != grpc.StatusCode.OK
        # The server's own refusals have details.
        assert details == ""


async def test_an_address_with_too_many_calls_is_refused_and_others_are_not(
    database: Database, tmp_path: Path
) -> None:
    def fewer(config: dict[str, Any]) -> None:
        bucket = {"max_tokens": 20, "tokens_per_fill": 20, "fill_interval": "3600s"}
        rate_limit(config)["descriptors"][0]["token_bucket"] = bucket

    async with (
        behind_envoy(database, tmp_path, fewer) as (server, address, tls),
        namespaces(address, tls) as (stub, authorization),
    ):
        ended = await asyncio.gather(*(listed(stub, authorization) for _ in range(30)))
        # The log-in took one token.
        assert sorted(code.name for code, _ in ended) == ["OK"] * 19 + ["RESOURCE_EXHAUSTED"] * 11
        assert [each async for each in server.admin.namespaces.list()] == []


def serving_browsers(config: dict[str, Any]) -> None:
    """Makes the changes that docs/browser.md names for clients of gRPC-Web."""
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    http = manager(config)
    http["codec_type"] = "AUTO"
    kind = "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"
    http["http_filters"].insert(-1, {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": kind}})
    http["route_config"]["virtual_hosts"][0]["routes"][0]["match"] = {"prefix": "/"}


async def test_clients_of_grpc_web_reach_the_grpc_port(database: Database, tmp_path: Path) -> None:
    """A unary call, an error with its details, a stream, and gRPC itself all pass through one Envoy."""
    async with behind_envoy(database, tmp_path, serving_browsers) as (server, address, tls):
        trusted = ssl.create_default_context(cadata=(tls.root_certificates or b"").decode())
        connector = aiohttp.TCPConnector(ssl=trusted)
        async with (
            aiohttp.ClientSession(f"https://{address}", connector=connector) as session,
            namespaces(address, tls) as (stub, authorization),
        ):
            headers = {
                "authorization": authorization,
                "content-type": "application/grpc-web+proto",
                "x-grpc-web": "1",
            }

            async def called(method: str, **fields: Any) -> tuple[Ended, str]:
                rule = RULES[method]
                body = framed(rule.request_class(**fields).SerializeToString())
                async with within(30), session.post(rule.method, data=body, headers=headers) as response:
                    kind = response.content_type
                    found = await response.read()
                # An error without a response message arrives in the headers, as gRPC-Web allows.
                if "grpc-status" in response.headers:
                    return Ended(int(response.headers["grpc-status"])), kind
                return read_all(found, rule.response_class), kind

            wanted = namespace_pb2.Namespace(name="shop")
            made, kind = await called("CreateNamespace", namespace=wanted)
            assert (made.code, kind) == (0, "application/grpc-web+proto")
            assert made.answers[0].namespace.name == "shop"
            missing, _ = await called("GetNamespace", name="missing")
            assert missing.code == grpc.StatusCode.NOT_FOUND.value[0]
            watched = RULES["WatchNamespaces"]
            body = framed(watched.request_class().SerializeToString())
            async with within(30), session.post(watched.method, data=body, headers=headers) as response:
                prefix = await response.content.readexactly(5)
                first = await response.content.readexactly(int.from_bytes(prefix[1:], "big"))
            assert watched.response_class.FromString(first).namespace.name == "shop"  # type: ignore[attr-defined]
            assert await listed(stub, authorization) == (grpc.StatusCode.OK, "")
            assert [each.name async for each in server.admin.namespaces.list()] == ["shop"]


async def test_without_a_bound_the_same_calls_reach_the_server(database: Database, tmp_path: Path) -> None:
    def unbounded(config: dict[str, Any]) -> None:
        rate_limit(config)["descriptors"] = []

    async with (
        behind_envoy(database, tmp_path, unbounded) as (_, address, tls),
        namespaces(address, tls) as (stub, authorization),
    ):
        ended = await asyncio.gather(*(listed(stub, authorization) for _ in range(30)))
        assert {code for code, _ in ended} == {grpc.StatusCode.OK}
