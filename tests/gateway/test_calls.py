"""Calls by HTTP return, fail and are recorded in the same way as calls by gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from pilothouse.audit.v1 import audit_pb2, audit_pb2_grpc
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2, container_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from tests.gateway.browser import Browser, framed, port_of
from tests.harness import Server
from tests.waiting import poll_until, within


async def test_a_call_returns_what_it_returns_by_grpc(server: Server, program: Browser) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="by-http"))
    by_grpc = await server.admin.namespaces.get(name="by-http")
    by_web = await program.call("GetNamespace", {"name": "by-http"})
    assert (by_web.code, by_web.answers[0].namespace.uid) == (0, by_grpc.uid)
    assert by_web.trailers["pilothouse-operation-id"]
    status, by_json = await program.json("GetNamespace", {"name": "by-http"})
    assert (status, by_json["namespace"]["uid"]) == (200, by_grpc.uid)


async def test_an_error_has_its_details(program: Browser) -> None:
    ended = await program.call("GetNamespace", {"name": "nowhere"})
    assert (ended.code, ended.reason) == (grpc.StatusCode.NOT_FOUND.value[0], "NAMESPACE_NOT_FOUND")
    status, body = await program.json("GetNamespace", {"name": "nowhere"})
    assert (status, body["code"]) == (404, "not_found")
    assert body["details"][0]["debug"]["reason"] == "NAMESPACE_NOT_FOUND"
    status, body = await program.json("GetNamespace", {"nmae": "nowhere"})
    assert (status, body["code"]) == (400, "invalid_argument")
    assert 'has no field "nmae"' in body["message"]
    ended = await program.call("GetNamespace", {"name": "-"})
    assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_FIELD")


async def test_the_client_sets_the_deadline(program: Browser) -> None:
    # No other event reaches a watch of this name. A slow server needs longer for the first response.
    seen: list[int] = []
    for milliseconds in (300, 1_000, 3_000, 9_000):
        ended = await program.call("WatchNamespaces", {"name": "nowhere"}, grpc_timeout=f"{milliseconds}m")
        assert ended.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        if seen := [each.change_type for each in ended.answers]:
            break
    assert seen == [resource_pb2.CHANGE_TYPE_SYNCED]


async def test_invalid_calls_are_refused(program: Browser) -> None:
    for path, status in (("/", 404), ("/no.such.Service/Method", 501), ("/a/b/c", 404)):
        async with program.session.post(
            program.url + path, data=framed(b""), headers={"content-type": "application/json"}
        ) as response:
            assert response.status == status, path
    async with program.session.post(
        f"{program.url}/pilothouse.namespace.v1.NamespaceService/GetNamespace", data=b"name=demo"
    ) as response:
        assert response.status == 415
    long = await program.call("GetNamespace", {"name": "x" * 600_000})
    assert (long.code, long.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "MESSAGE_TOO_LARGE")
    for path in ("/livez", "/readyz", "/healthz"):
        async with program.session.get(program.url + path) as response:
            assert (response.status, await response.text()) == (200, "ok\n")
    async with Browser(int(program.host.rpartition(":")[2]), origin="") as nobody:
        ended = await nobody.call("ListNamespaces")
        assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED.value[0], "NO_TOKEN")


async def test_a_watch_over_a_websocket_ends_with_its_session(server: Server) -> None:
    async with (
        Browser(port_of(server), origin="", token=await server.token()) as program,
        program.stream("WatchNamespaces") as watch,
    ):
        await watch.send(namespace_pb2.WatchNamespacesRequest())
        while (await watch.read()).change_type != resource_pb2.CHANGE_TYPE_SYNCED:
            pass
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="seen"))
        while (await watch.read()).namespace.name != "seen":
            pass
        assert (await program.call("Logout")).code == 0
        async with within(5.0):
            ended = await watch.end()
        assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED.value[0], "INVALID_TOKEN")


async def test_a_long_response_is_compressed_or_sent_in_frames(server: Server, program: Browser) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="long"))
    await server.admin.config.create_config_map(
        namespace="long",
        config_map=config_pb2.ConfigMap(name="long", namespace="long", data={"key": "x" * 200_000}),
    )
    read = await program.call("GetConfigMap", {"namespace": "long", "name": "long"})
    assert read.headers["content-encoding"] == "gzip"
    assert len(read.answers[0].config_map.data["key"]) == 200_000
    async with program.stream("GetConfigMap") as reading:
        await reading.send(config_pb2.GetConfigMapRequest(namespace="long", name="long"))
        # The reconciler may have written the state of the config map since then.
        again = (await reading.read()).config_map
        assert (again.uid, again.data) == (read.answers[0].config_map.uid, read.answers[0].config_map.data)
        assert (await reading.end()).code == 0


# Fields of a record that differ from call to call, or by the calling program.
_OF_ONE_CALL = (
    *("operation_id", "sequence", "duration", "duration_ms", "start_time", "end_time", "record_hash"),
    *("user_agent", "request_headers", "request_headers_json", "stream_id"),
)


async def test_audit_records_equal_those_of_grpc(server: Server, program: Browser) -> None:
    stub: Any = container_pb2_grpc.ContainerServiceStub(server.channel())
    metadata = (("authorization", program.headers["authorization"]),)
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="recorded"))
    request = container_pb2.ListContainersRequest(namespace="recorded")
    await stub.ListContainers(request, metadata=metadata)
    assert (await program.call("ListContainers", request)).code == 0
    assert (await program.json("ListContainers", {"namespace": "recorded"}))[0] == 200
    refused = container_pb2.ListContainersRequest(namespace="recorded", page_size=-1)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.ListContainers(refused, metadata=metadata)
    await program.call("ListContainers", refused)
    audit: Any = audit_pb2_grpc.AuditServiceStub(server.channel())

    async def records() -> list[Any]:
        answer = await audit.ListOperations(
            audit_pb2.ListOperationsRequest(namespace="recorded", page_size=50), metadata=metadata
        )
        return [each for each in answer.operations if each.request_path.endswith("/ListContainers")]

    found = await poll_until(records, lambda found: len(found) == 5)
    for each in found:
        assert each.client_ip == "127.0.0.1"
        assert "authorization" not in str(each.request_headers)
        for name in _OF_ONE_CALL:
            each.ClearField(name)
    texts = {str(each) for each in found}
    assert len(texts) == 2, "\n".join(texts)


async def test_calls_of_one_connection_share_no_context(program: Browser) -> None:
    ended = await asyncio.gather(*(program.call("WhoAmI") for _ in range(20)))
    assert {each.code for each in ended} == {0}
