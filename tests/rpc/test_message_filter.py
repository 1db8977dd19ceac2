"""Filters over messages: the fields and meanings of list filters, and the state before as far as it is known."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.application.v1 import application_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.applications.repository import _FILTERS as APPLICATIONS
from pilothouse_server.config.repository import CACHED as CONFIGS
from pilothouse_server.containers.repository.containers import _FILTERS as CONTAINERS
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.namespaces.repository import _FILTERS as NAMESPACES
from pilothouse_server.network.repository import _FILTERS as SERVICES
from pilothouse_server.objects.repository.objects import _FILTERS as OBJECTS
from pilothouse_server.rpc.message_filter import MessageFilter
from pilothouse_server.storage.repository.volumes import _FILTERS as VOLUMES
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.filtering import FilterField, FilterKind

LISTS: list[tuple[Any, type[Message]]] = [
    (APPLICATIONS, application_pb2.Application),
    (CONFIGS["config_map"].filters, config_pb2.Config),
    (CONFIGS["secret"].filters, config_pb2.Config),
    (CONTAINERS, container_pb2.Container),
    (NAMESPACES, namespace_pb2.Namespace),
    (OBJECTS, object_pb2.Object),
    (SERVICES, network_pb2.Service),
    (VOLUMES, storage_pb2.Volume),
]
VALUES = {
    FilterKind.TEXT: "a*",
    FilterKind.INTEGER: "1",
    FilterKind.NUMBER: "1",
    FilterKind.BOOLEAN: "true",
    FilterKind.TIMESTAMP: "2026-01-31T12:00:00Z",
    FilterKind.UUID: "00000000-0000-4000-8000-000000000001",
}


@pytest.mark.parametrize(("fields", "message"), LISTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_watch_accepts_every_filter_field_of_its_list(fields: Any, message: type[Message]) -> None:
    expressions = [text for name, field in fields.items() for text in expressions_of(name, field)]
    refused = []
    for text in expressions:
        try:
            MessageFilter(text, message)
        except InvalidArgument as error:
            refused.append(error.message)
    assert len(expressions) >= len(fields)
    assert refused == []


def expressions_of(name: str, field: FilterField) -> list[str]:
    """Returns expressions about a field of a list."""
    parts = [f"{name}.{part} : a" for part in field.parts]
    if field.kind is FilterKind.LABELS:
        return [f'{name}.app = "web" AND {name}:app']
    if field.kind is FilterKind.ENUM:
        return [f"{name} = {word} OR {name} = {field.prefix}{word}" for word in field.names]
    return [f"{name} = {VALUES[field.kind]}", *parts]


def web(**fields: Any) -> container_pb2.Container:
    """Returns a container as events contain it."""
    made = Timestamp(seconds=1_770_000_000)
    values: dict[str, Any] = {
        "name": "web",
        "image": "ghcr.io/shop/web:1.27",
        "labels": {"app": "web", "empty": ""},
        "status": container_pb2.CONTAINER_STATUS_RUNNING,
        "restart_count": 3,
        "create_time": made,
    }
    return container_pb2.Container(**{**values, **fields})


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("status = RUNNING", True),
        ("status = container_status_running restart_count >= 3", True),
        ("status != RUNNING", False),
        ("name = w* AND NOT name = *x", True),
        ("name : EB", True),
        ("name < x OR name = zzz", True),
        ("image.tag = 1.27 image.name = web image.repository = ghcr.io/shop", True),
        ('labels.app = "web" labels:empty labels.empty = ""', True),
        ('labels.none = ""', False),
        ("labels.none != web", True),
        ("labels : *", True),
        ('reason = ""', True),
        ("reason : *", False),
        ("create_time > 2026-01-01", True),
        ("started_at > 2026-01-01", False),
        ("NOT started_at > 2026-01-01", True),
        ("(status = FAILED OR restart_count > 2) reconciling = false", True),
        ("uid = 00000000-0000-4000-8000-000000000001", False),
    ],
)
def test_an_expression_matches_a_message(text: str, passes: bool) -> None:
    assert MessageFilter(text, container_pb2.Container).matches(web().SerializeToString()) is passes


def test_an_expression_applies_to_the_message_of_a_oneof() -> None:
    secret = config_pb2.Config(secret=config_pb2.Secret(name="key", type="Opaque")).SerializeToString()
    settings = config_pb2.Config(config_map=config_pb2.ConfigMap(name="key")).SerializeToString()
    assert MessageFilter("type = Opaque", config_pb2.Config).matches(secret)
    assert not MessageFilter("type = Opaque", config_pb2.Config).matches(settings)
    assert MessageFilter("name = key", config_pb2.Config).matches(settings)


@pytest.mark.parametrize(
    "text",
    [
        "colour = red",
        "ports = 80",
        "status = BLUE",
        "status > RUNNING",
        "name.part = a",
        "restart_count = *a",
    ],
)
def test_an_expression_that_a_list_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        MessageFilter(text, container_pb2.Container)
    assert refused.value.reason == "INVALID_FILTER"


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("status = PENDING", True),
        ("status = RUNNING", False),
        ("labels.app = old", True),
        ("name = other", False),
        ("image.tag = 1.27", None),
        # One term that decides is enough.
        ("image.tag = 1.27 status = RUNNING", False),
        ("image.tag = 1.27 OR status = PENDING", True),
        ("NOT image.tag = 1.27", None),
    ],
)
def test_the_state_before_is_known_in_part(text: str, before: bool | None) -> None:
    event = FeedEvent(
        7,
        "container",
        1,
        "web",
        "modified",
        web().SerializeToString(),
        {"app": "web"},
        "running",
        {"app": "old"},
        "pending",
    )
    assert MessageFilter(text, container_pb2.Container).matched_before(event) is before
