"""Every list can be filtered by every field that it shows, except those named here with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from tests.conftest import Database
from tests.harness import running_server
from tests.services import METHODS

# Fields that a list requires.
_NEEDED: dict[str, dict[str, Any]] = {
    "ListPrincipals": {"permission": "container.get"},
    "ListOrphans": {"cluster_name": "local"},
}
# Calls compare an etag, but no list is filtered by it.
_NEVER = {"etag"}
_WHOLE = "a document as text; what is asked for of it has a field"
_NOT_FILTERED = {
    "ListContainers": {
        "uptime": "it changes by itself; started_at is filtered",
        "termination_grace_seconds": "a number within the document of the pod's fields",
        "automount_service_account_token": "a choice within the document of the pod's fields",
        "runs_kept": "a number within the document of the pod's fields",
        "revisions_kept": "a number within the document of the pod's fields",
    },
    "ListImages": {"container_count": "it is counted for each caller; a page shows it"},
    "ListClusters": {"leader": "it is no column of the row: who watches it at this moment"},
    "ListApiKeys": {"hidden_namespaces": "it is counted for each caller; a page shows it"},
    "ListVolumes": {
        "external": "a choice within the document of a config map's or secret's fields",
        "medium": "a choice within the document of an emptyDir's fields",
        "optional": "a choice within the document of a config map's or secret's fields",
    },
    "ListObjects": {
        "document": "a document as text; api_version, kind and labels are filtered",
        "document_digest": "it changes with every change of the document",
        "observed_status": _WHOLE,
    },
    "ListServices": dict.fromkeys(
        (
            "allocate_load_balancer_node_ports",
            "cluster_ip",
            "external_name",
            "external_traffic_policy",
            "headless",
            "internal_traffic_policy",
            "ip_family_policy",
            "load_balancer_class",
            "load_balancer_ip",
            "publish_not_ready_addresses",
            "session_affinity",
            "session_affinity_timeout_seconds",
            "traffic_distribution",
        ),
        "a value within the document of a Service's fields",
    ),
    "ListOrphans": {
        "cluster_name": "the list is of one cluster",
        "decide_time": "whether it is decided is the state, which is filtered",
    },
    "ListOperations": {
        "duration": "filtered as duration_ms, a whole number",
        "record_hash": "a record is found by its operation_id",
        "request_body_json": _WHOLE,
        "request_headers_json": _WHOLE,
        "response_body_json": _WHOLE,
        "metadata_json": _WHOLE,
    },
    "ListAuditSinks": {
        "certificate_authority": "a text within the document of what depends on the kind",
        "client_certificate": "a text within the document of what depends on the kind",
        "rotate_bytes": "a number within the document of what depends on the kind",
        "keep_files": "a number within the document of what depends on the kind",
        "lag_records": "it changes by itself; position is filtered",
        "oldest_pending_time": "it changes by itself; position is filtered",
        "created_by": "there are few sinks, made by administrators",
    },
}


def shown(message: Descriptor) -> set[str]:
    """Returns the fields of a listed message that have one value each."""
    times = ("google.protobuf.Timestamp", "google.protobuf.Duration")
    return {
        field.name
        for field in message.fields
        if not field.is_repeated
        and (
            field.type != FieldDescriptor.TYPE_MESSAGE
            or (field.message_type is not None and field.message_type.full_name in times)
        )
    }


def filtered_lists() -> list[MethodDescriptor]:
    """Returns the calls that return pages and take a filter."""
    return [
        method
        for method in METHODS
        if method.name.startswith("List") and "filter" in method.input_type.fields_by_name
    ]


async def refused(channel: grpc.aio.Channel, token: str, method: MethodDescriptor) -> set[str]:
    """Returns the shown fields by which the list cannot be filtered."""
    request: Any = GetMessageClass(method.input_type)
    call: Any = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    listed = next(field for field in method.output_type.fields if field.is_repeated)
    found = set()
    assert listed.message_type is not None
    for name in shown(listed.message_type) - _NEVER:
        try:
            asked = request(filter=f"{name}:*", **_NEEDED.get(method.name, {}))
            await call(asked, metadata=(("authorization", f"Bearer {token}"),))
        except grpc.aio.AioRpcError as error:
            found.add(name if "unknown field" in (error.details() or "") else f"{name}: {error.details()}")
    return found


@pytest.mark.full
async def test_every_shown_field_can_be_filtered(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        token, channel = await server.token(), server.channel()
        lists = filtered_lists()
        found = {method.name: await refused(channel, token, method) for method in lists}
    assert len(lists) > 8
    assert {name: fields for name, fields in found.items() if fields} == {
        name: set(fields) for name, fields in _NOT_FILTERED.items()
    }


async def test_images_are_found_by_reference_and_by_part(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        for name, image in (("web", "nginx:1.27"), ("old", "nginx:1.26"), ("own", "ghcr.io/acme/web:1.27")):
            await server.admin.containers.create(
                namespace="shop", container=container_pb2.Container(name=name, image=image)
            )

        async def found(expression: str) -> list[str]:
            return [
                each.name async for each in server.admin.containers.list(namespace="shop", filter=expression)
            ]

        assert await found('image = "nginx:1.27"') == ["web"]
        assert await found('image != "nginx:1.27"') == ["old", "own"]
        assert await found("image:NGINX") == ["old", "web"]
        assert await found("image.tag = 1.27") == ["own", "web"]
        assert await found('image.repository = "" AND image.name = nginx') == ["old", "web"]
        assert await found('image.digest = ""') == ["old", "own", "web"]
        assert await found('display_name = ""') == ["old", "own", "web"]
        assert await found('display_name != ""') == []
        (old,) = [each async for each in server.admin.containers.list_images(filter='image = "nginx:1.26"')]
        assert (old.image, old.tag) == ("nginx:1.26", "1.26")
        images = [each.image async for each in server.admin.containers.list_images(filter="image.tag = 1.27")]
        assert images == ["nginx:1.27", "ghcr.io/acme/web:1.27"]
