"""Every layer reports a missing or reserved field in the same way, by the name that the caller used."""

from __future__ import annotations

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server


async def test_missing_and_reserved_fields_are_named_as_in_the_request(server: Server) -> None:
    admin = server.admin
    web = container_pb2.Container(name="web", image="nginx:1.27")
    reserved = "RESERVED_NAME"
    for call, field, reason in (
        # Refused by the permission check, by the check of formats, and by a noun's own rules.
        (admin.containers.create(container=web), "namespace", "REQUIRED"),
        (admin.namespaces.delete(), "name", "REQUIRED"),
        (admin.namespaces.get_cluster(), "name", "REQUIRED"),
        (
            admin.namespaces.create(namespace=namespace_pb2.Namespace(labels={"a": "b"})),
            "namespace.name",
            "REQUIRED",
        ),
        (
            admin.namespaces.create(namespace=namespace_pb2.Namespace(name="default")),
            "namespace.name",
            reserved,
        ),
        (
            admin.namespaces.create(namespace=namespace_pb2.Namespace(name="a", kubernetes_name="kube-a")),
            "namespace.kubernetes_name",
            reserved,
        ),
    ):
        with pytest.raises(PilothouseError) as refused:
            await call
        error = refused.value
        assert (error.reason, [each.field for each in error.violations]) == (reason, [field])
        if reason == "REQUIRED":
            assert error.message == f"{field}: must be given"
