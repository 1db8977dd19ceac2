"""Validation: the declarations of the product's messages are enforced, with paths.

Undeclared fields are bounded.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.identity.v1 import api_keys_pb2
from pilothouse.identity.v1 import identity_pb2 as identity
from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.rpc.field_checks import RuleError
from pilothouse_server.rpc.validation import (
    _resource_name_fields,
    compile_rules,
    is_long,
    validate,
    validate_in_steps,
)
from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.paging import LARGEST_PAGE_SIZE
from tests.rpc.message_types import BOOL, BYTES, DOUBLE, INT64, SECRET, STRING, ProtoFile


def violations(message: Message) -> dict[str, str]:
    """Returns the violated rules by path; empty if the message is valid."""
    try:
        validate(message)
    except InvalidArgument as error:
        return {violation.field: violation.rule for violation in error.violations}
    return {}


async def violations_in_steps(message: Message) -> dict[str, str]:
    """Returns the same as `violations`, from the check in steps."""
    try:
        await validate_in_steps(message)
    except InvalidArgument as error:
        return {violation.field: violation.rule for violation in error.violations}
    return {}


def create_request(**container: Any) -> containers.CreateContainerRequest:
    return containers.CreateContainerRequest(
        namespace="team", container=containers.Container(**{"name": "web", "image": "nginx:1", **container})
    )


def test_a_complete_request_passes() -> None:
    request = create_request(
        ports=[containers.Port(name="http", container_port=80)],
        labels={"app": "web", "example.com/x": ""},
        annotations={"Example.com/Note": "any\ntext " * 1000},
        env=[containers.EnvVar(name="A.b", value="x" * 32768)],
        resources=containers.Resources(cpu_request="100m", memory_limit="64Mi"),
        replicas=0,
    )
    request.request_id = "00000000-0000-4000-8000-00000000000a"
    assert violations(request) == {}


def test_every_violation_is_reported_with_its_full_path() -> None:
    request = create_request(
        name="Web",
        image="nginx:",
        ports=[
            containers.Port(container_port=80),
            containers.Port(container_port=99999),
            containers.Port(name="http"),
        ],
        labels={"a/b/c": "x"},
        resources=containers.Resources(cpu_limit="lots"),
        replicas=-1,
        drift_policy=99,
        volume_mounts=[containers.VolumeMount(volume="v", mount_path="../x")],
        tolerations=[containers.Toleration(key="x" * 317)],
    )
    request.request_id = "1"
    request.namespace = ""
    assert violations(request) == {
        "namespace": "required",
        "request_id": "format_uuid",
        "container.name": "format_dns_label",
        "container.image": "format_image",
        "container.ports[1].container_port": "maximum",
        "container.ports[2].container_port": "required",
        'container.labels["a/b/c"]': "format",
        "container.resources.cpu_limit": "format_quantity",
        "container.replicas": "minimum",
        "container.drift_policy": "enum",
        "container.volume_mounts[0].mount_path": "format_absolute_path",
        "container.tolerations[0].key": "max_length",
    }


def test_one_constant_limits_the_size_of_every_page() -> None:
    for size, wrong in ((LARGEST_PAGE_SIZE, {}), (LARGEST_PAGE_SIZE + 1, {"page_size": "maximum"})):
        assert violations(containers.ListContainersRequest(page_size=size)) == wrong
    assert violations(containers.ListContainersRequest(page_size=-1)) == {"page_size": "minimum"}
    fields = [
        field
        for module in (containers, identity, api_keys_pb2)
        for message in module.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.name == "page_size"
    ]
    assert len(fields) > 5
    assert all(field.GetOptions().Extensions[options.field].page_size for field in fields)


def test_the_error_names_the_first_violation_and_how_many_more() -> None:
    with pytest.raises(InvalidArgument) as caught:
        validate(containers.GetContainerRequest())
    assert caught.value.message == "namespace: must be given (and 1 more)"
    assert caught.value.reason == "REQUIRED"
    assert caught.value.metadata == {"field": "namespace"}


def test_at_most_twenty_violations_are_reported() -> None:
    request = create_request(env=[containers.EnvVar() for _ in range(500)])
    assert len(violations(request)) == 20


def test_output_only_fields_are_cleared_and_not_validated() -> None:
    request = create_request(
        namespace="other",
        uid="x" * 5000,
        status=77,
        conditions=[{"type": "A"}],
        create_time=Timestamp(nanos=-1),
    )
    assert violations(request) == {}
    assert request == create_request()


@pytest.mark.parametrize("name", ["..", "a/b", "a%2fb", "a\x00", "wеb", "a\n"])
def test_names_of_requests_are_validated_without_a_declared_format(name: str) -> None:
    assert set(violations(containers.GetContainerRequest(namespace="team", name=name))) == {"name"}
    assert set(violations(containers.GetContainerRequest(namespace=name, name="web"))) == {"namespace"}


def test_the_username_of_a_login_is_not_validated_here() -> None:
    assert violations(identity.LoginRequest(username="ａｄｍｉｎ", password="x")) == {}


def test_an_empty_message_counts_as_missing() -> None:
    request = containers.CreateContainerRequest(namespace="team")
    request.container.SetInParent()
    assert violations(request) == {"container": "required"}


def test_an_empty_resource_clears_the_fields_of_a_mask() -> None:
    request = identity.UpdateUserRequest(username="anna", update_mask=FieldMask(paths=["full_name"]))
    assert violations(request) == {"user": "required"}
    request.user.SetInParent()
    assert violations(request) == {}
    request.update_mask.Clear()
    assert violations(request) == {"update_mask": "required"}


@pytest.fixture(scope="module")
def everything() -> dict[str, type[Message]]:
    file = ProtoFile()
    (
        file.message("Everything")
        .field("text", STRING)
        .field("data", BYTES)
        .field("texts", STRING, repeated=True)
        .field("ratio", DOUBLE, minimum=0)
        .field("count", INT64, optional=True, required=True, maximum=10)
        .field("flag", BOOL)
        .field("moment", ".google.protobuf.Timestamp")
        .field("span", ".google.protobuf.Duration")
        .field("child", "Everything")
        .field("secret_text", STRING, sensitivity=SECRET, min_length=4, format=options.FORMAT_DNS_LABEL)
        .map("secrets", STRING, sensitivity=SECRET, format=options.FORMAT_CONFIG_KEY, max_length=5)
        .map("children", "Everything")
        .map("numbers", INT64, minimum=1)
    )
    return file.types()


def test_defaults_bound_undeclared_fields(everything: dict[str, type[Message]]) -> None:
    make: Any = everything["Everything"]
    assert violations(make(count=0, text="ä" * 1024, data=b"x" * (1 << 20), texts=[""] * 256)) == {}
    assert violations(make(count=0, text="x" * 1025, data=b"x" * ((1 << 20) + 1), texts=[""] * 257)) == {
        "text": "max_length",
        "data": "max_length",
        "texts": "max_items",
    }
    assert violations(make(count=0, text="a\x00", texts=["", "\x00"])) == {"text": "text", "texts[1]": "text"}
    assert violations(make(count=0, numbers={str(number): 1 for number in range(257)})) == {
        "numbers": "max_items"
    }


def test_presence_counts_if_a_field_tracks_it(everything: dict[str, type[Message]]) -> None:
    make: Any = everything["Everything"]
    assert violations(make()) == {"count": "required"}
    assert violations(make(count=0)) == {}
    assert violations(make(count=11)) == {"count": "maximum"}


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(everything: dict[str, type[Message]], ratio: float) -> None:
    make: Any = everything["Everything"]
    assert violations(make(count=0, ratio=ratio)) == {"ratio": "finite"}
    assert violations(make(count=0, ratio=-0.5)) == {"ratio": "minimum"}


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(253_402_300_800, 0), (253_402_300_799, 999_999_000), (-62_135_596_801, 0), (0, -1), (0, 10**9)],
)
def test_times_that_cannot_be_written_are_refused(
    everything: dict[str, type[Message]], seconds: int, nanos: int
) -> None:
    make: Any = everything["Everything"]
    assert violations(make(count=0, moment=Timestamp(seconds=seconds, nanos=nanos))) == {
        "moment": "timestamp"
    }


@pytest.mark.parametrize(("seconds", "nanos"), [(315_576_000_001, 0), (1, -1), (-1, 1), (0, 10**9)])
def test_durations_that_cannot_be_written_are_refused(
    everything: dict[str, type[Message]], seconds: int, nanos: int
) -> None:
    make: Any = everything["Everything"]
    assert violations(make(count=0, span=Duration(seconds=seconds, nanos=nanos))) == {"span": "duration"}


def test_nesting_is_followed_also_through_maps_and_its_own_type(everything: dict[str, type[Message]]) -> None:
    make: Any = everything["Everything"]
    message = make(
        count=0, child=make(count=0, child=make(count=99)), children={'a"b': make(text="x" * 2000)}
    )
    assert violations(message) == {
        "child.child.count": "maximum",
        'children["a\\"b"].text': "max_length",
        'children["a\\"b"].count': "required",
    }


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_violations_never_contain_a_secret(everything: dict[str, type[Message]], text: str) -> None:
    make: Any = everything["Everything"]
    canary = f"CANARY_{text}"
    message = make(count=0, secret_text=canary, secrets={canary: canary, "key": canary})
    with pytest.raises(InvalidArgument) as caught:
        validate(message)
    assert "CANARY" not in repr((caught.value.message, caught.value.metadata, caught.value.violations))
    assert {violation.field for violation in caught.value.violations} == {"secret_text", "secrets[*]"}


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (INT64, {"format": options.FORMAT_UUID}),
        (BOOL, {"min_length": 1}),
        (STRING, {"format": options.FORMAT_LABELS}),
    ],
)
def test_a_rule_that_cannot_apply_is_a_fault_of_the_proto_file(kind: int, rule: dict[str, Any]) -> None:
    file = ProtoFile()
    file.message("Wrong").field("field", kind, **rule)
    with pytest.raises(RuleError, match=r"Wrong\.field"):
        compile_rules(file.load().message_types_by_name["Wrong"])


def test_the_methods_of_a_message_are_found_in_the_importing_file() -> None:
    """Names without a declared format are checked if a method finds its resource by them."""
    names = set(_resource_name_fields(api_keys_pb2.DeleteServiceAccountRequest.DESCRIPTOR))
    assert names == {"namespace", "name"}


def long_request(**wrong: Any) -> containers.CreateContainerRequest:
    """Returns a request with some hundred variables in two init containers.

    `wrong` are fields of one variable.
    """
    request = create_request(
        init_containers=[
            containers.InitContainer(
                name=f"init-{number}",
                image="nginx:1",
                env=[containers.EnvVar(name=f"NUMBER_{each}", value="x" * 20) for each in range(300)],
            )
            for number in range(2)
        ]
    )
    for name, value in wrong.items():
        setattr(request.container.init_containers[1].env[170], name, value)
    return request


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({}, None),
        ({"name": "1="}, "format_env_name"),
        ({"name": ""}, "required"),
        ({"value_from": 77}, "enum"),
    ],
)
async def test_a_long_request_is_checked_in_steps_as_a_short_one_is(
    wrong: dict[str, Any], rule: str | None
) -> None:
    request = long_request(**wrong)
    assert is_long(request)
    found = violations(request)
    assert set(found.values()) == ({rule} if rule else set())
    assert await violations_in_steps(request) == found


async def test_too_many_violations_are_reported_alike_in_steps() -> None:
    many = long_request()
    for each in many.container.init_containers[0].env:
        each.name = "="
    assert await violations_in_steps(many) == violations(many)
    set_by_server = long_request()
    set_by_server.container.created_by = "me"
    assert await violations_in_steps(set_by_server) == {}
    assert set_by_server == long_request()
    too_many = create_request(
        env=[containers.EnvVar(name=f"N{number}", value="x" * 20) for number in range(513)]
    )
    assert await violations_in_steps(too_many) == violations(too_many) == {"container.env": "max_items"}


async def test_other_tasks_run_between_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    request, turns = long_request(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await validate_in_steps(request)
    in_steps, turns = turns, 0
    validate(request)
    await cancel_and_wait(task)
    assert in_steps > 600
    # The control: the other check does not yield.
    assert turns == 0


def test_a_request_without_nested_messages_is_never_long() -> None:
    assert not is_long(containers.GetContainerRequest(namespace="team", name="x" * 100_000))
    assert not is_long(create_request())
