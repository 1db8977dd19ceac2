"""The server does not start with a credential field that is not declared, or a method without a rule."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2, permissions_pb2
from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.declarations import DeclarationError, check_declared
from pilothouse_server.rpc.validation import _resource_name_fields, _services_beside
from tests.rpc.message_types import (
    BOOL,
    BYTES,
    CHANGE_TYPE,
    INT64,
    PUBLIC,
    SECRET,
    STRING,
    TIMESTAMP,
    ProtoFile,
)
from tests.services import METHODS, SERVICES

RULE = options.MethodRule(
    access=options.ACCESS_PERMISSION,
    permission="thing.get",
    scope=options.SCOPE_PLATFORM,
    audit=options.AUDIT_LEVEL_READ,
    action="get",
    resource_type="container",
)


def test_the_proto_files_of_the_product_declare_everything() -> None:
    services = [
        service
        for file in (identity_pb2, container_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    assert len(services) == 2
    check_declared(services)


def test_a_request_in_another_file_than_its_service_has_its_rules() -> None:
    """Its file has no service, so the fields that name a resource are found by a service in another file."""
    descriptor = permissions_pb2.SimulateGrantRequest.DESCRIPTOR
    assert not descriptor.file.services_by_name
    assert set(_resource_name_fields(descriptor)) == {"username", "namespace"}
    # If the service is in the message's own file, it is found once.
    assert [service.name for service in _services_beside(identity_pb2.LoginRequest.DESCRIPTOR)] == [
        "IdentityService"
    ]


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
def test_a_field_that_could_contain_a_credential_must_declare_it(name: str, where: str) -> None:
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


def test_bytes_fields_must_declare_their_sensitivity() -> None:
    file = ProtoFile()
    file.message("Request").field("blob", BYTES).map("blobs", BYTES)
    file.message("Response")
    file.method("Request", "Response", RULE)
    assert len(faults(file)) == 2


def test_fields_that_are_declared_or_hold_no_credential_pass() -> None:
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
        ({"action": "fly"}, "declares the action 'fly', which is not a word of the log"),
        ({"resource_type": "moon"}, "declares the resource_type 'moon', which is not a word of the log"),
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


def watch_answer(fields: list[tuple[str, int | str]], *, stream: bool = True) -> tuple[str, ...]:
    file = ProtoFile()
    file.message("Request")
    answer = file.message("Answer")
    for name, kind in fields:
        answer.field(name, kind, sensitivity=PUBLIC)
    file.method("Request", "Answer", RULE, stream=stream)
    return faults(file)


WATCH_ANSWER: list[tuple[str, int | str]] = [
    ("change_type", CHANGE_TYPE),
    ("thing", "Request"),
    ("revision", INT64),
    ("resume_token", STRING),
    ("server_time", TIMESTAMP),
]


def test_a_watch_response_has_the_fields_that_are_encoded_by_hand() -> None:
    assert watch_answer(WATCH_ANSWER) == ()
    swapped = [*WATCH_ANSWER[:2], WATCH_ANSWER[3], WATCH_ANSWER[2], WATCH_ANSWER[4]]
    assert [fault.split(" ", 1)[1] for fault in watch_answer(swapped)] == [
        "must have revision (int64) as field 3, as rpc.watch writes it",
        "must have resume_token (string) as field 4, as rpc.watch writes it",
    ]
    assert watch_answer(swapped, stream=False) == ()


@pytest.mark.parametrize(
    ("number", "name", "kind"),
    [
        (1, "kind", CHANGE_TYPE),
        (2, "thing", CHANGE_TYPE),
        (3, "revision", STRING),
        (4, "token", STRING),
        (5, "server_time", "Request"),
    ],
)
def test_a_watch_response_with_another_field_is_refused(number: int, name: str, kind: int | str) -> None:
    fields = [*WATCH_ANSWER]
    fields[number - 1] = (name, kind)
    [fault] = watch_answer(fields)
    assert f"as field {number}" in fault


def test_every_watch_of_the_product_is_checked() -> None:
    """The check recognises a watch by its ChangeType.

    A stream without a ChangeType is not written by `rpc.watch`.
    """
    watches = {
        method.output_type.name
        for method in METHODS
        if method.server_streaming
        and any(
            field.enum_type is not None and field.enum_type.name == "ChangeType"
            for field in method.output_type.fields
        )
    }
    named = {method.output_type.name for method in METHODS if method.name.startswith("Watch")}
    # Samples of usage and Events of a cluster are not changes of a resource.
    assert len(watches) >= 5
    assert watches == named - {"WatchUsageResponse", "WatchEventsResponse"}
    check_declared(SERVICES)
