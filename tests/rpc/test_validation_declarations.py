"""The server does not start with a credential that is not declared, or a method without a rule."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.declarations import DeclarationError, check_declared
from tests.rpc.message_types import BOOL, BYTES, PUBLIC, SECRET, STRING, ProtoFile

RULE = options.MethodRule(
    access=options.ACCESS_PERMISSION,
    permission="thing.get",
    scope=options.SCOPE_PLATFORM,
    audit=options.AUDIT_LEVEL_READ,
    action="get",
    resource_type="thing",
)


def test_the_products_own_files_leave_nothing_open() -> None:
    services = [
        service
        for file in (identity_pb2, container_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    assert len(services) == 2
    check_declared(services)


def faults(file: ProtoFile) -> tuple[str, ...]:
    try:
        check_declared(file.load().services_by_name.values())
    except DeclarationError as error:
        return error.faults
    return ()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "new_password",
            "passphrase",
            "token",
            "access_token",
            "tokens",
            "client_secret",
            "secrets",
        ),
        *(
            "key",
            "api_key",
            "credential",
            "credentials",
            "kubeconfig",
            "authorization",
            "cookie",
            "bearer_value",
        ),
        "private_part",
    ],
)
@pytest.mark.parametrize("where", ["request", "response", "nested", "map"])
def test_a_field_that_could_hold_a_credential_must_say_so(name: str, where: str) -> None:
    file = ProtoFile()
    request, response, nested = file.message("Request"), file.message("Response"), file.message("Nested")
    request.field("nested", "Nested", repeated=True)
    if where == "map":
        nested.map(name, STRING)
    else:
        {"request": request, "response": response, "nested": nested}[where].field(name, STRING)
    file.method("Request", "Response", RULE)
    found = faults(file)
    assert len(found) == 1
    assert f".{name} could hold a credential" in found[0]


def test_bytes_must_say_what_they_are() -> None:
    file = ProtoFile()
    file.message("Request").field("blob", BYTES).map("blobs", BYTES)
    file.message("Response")
    file.method("Request", "Response", RULE)
    assert len(faults(file)) == 2


def test_what_is_declared_or_cannot_hold_one_passes() -> None:
    file = ProtoFile()
    (
        file.message("Request")
        .field("password", STRING, sensitivity=SECRET)
        .field("page_token", STRING, sensitivity=PUBLIC)
        .field("must_change_password", BOOL)
        .field("monkey", STRING)
        .field("key", "Response")
        .map("labels", STRING)
    )
    file.message("Response")
    file.method("Request", "Response", RULE)
    assert faults(file) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"access": options.ACCESS_UNSPECIFIED}, "declares no access"),
        ({"audit": options.AUDIT_LEVEL_UNSPECIFIED}, "declares no audit level"),
        ({"action": ""}, "declares no action"),
        ({"resource_type": ""}, "declares no resource_type"),
        ({"permission": ""}, "declares no permission"),
        ({"permission": "everything"}, "declares no permission"),
        ({"scope": options.SCOPE_UNSPECIFIED}, "declares no scope"),
        ({"scope": options.SCOPE_NAMESPACE}, "declares no namespace_field"),
        ({"access": options.ACCESS_PUBLIC}, "that its access does not use"),
        ({"name_field": "nothing"}, "declares the path nothing"),
        ({"name_field": "flag"}, "declares the path flag"),
        ({"namespace_field": "nested.name"}, None),
    ],
)
def test_a_method_needs_a_complete_rule(change: dict[str, Any], words: str | None) -> None:
    file = ProtoFile()
    file.message("Request").field("flag", BOOL).field("nested", "Response")
    file.message("Response").field("name", STRING)
    rule = options.MethodRule()
    rule.CopyFrom(RULE)
    for name, value in change.items():
        setattr(rule, name, value)
    file.method("Request", "Response", rule)
    found = faults(file)
    if words is None:
        assert found == ()
    else:
        assert any(words in fault for fault in found), found


def test_a_method_without_any_rule_is_refused() -> None:
    file = ProtoFile()
    file.message("Request")
    file.method("Request", "Request", None)
    assert any("declares no access" in fault for fault in faults(file))
