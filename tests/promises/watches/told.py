"""Converts messages of the API to the states that the validators compare."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from google.protobuf.message import Message

from pilothouse.config.v1 import config_pb2 as config
from pilothouse.container.v1 import container_pb2 as container
from pilothouse.watch.v1 import watch_pb2
from tests.promises.watches.recording import State

MARKER = "example.org/mutation"


def digest(message: Message) -> int:
    """Returns eight bytes that represent the content.

    They cover all fields except `uptime`, which grows by itself.
    """
    if isinstance(message, container.Container) and message.HasField("uptime"):
        copy = container.Container()
        copy.CopyFrom(message)
        copy.ClearField("uptime")
        message = copy
    found = hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=8).digest()
    return int.from_bytes(found, "big")


def version(etag: str) -> int:
    """Returns the resource_version in an etag, which is opaque except for tests."""
    return int(base64.urlsafe_b64decode(etag + "=" * (-len(etag) % 4)).decode().rpartition("/")[2])


def state(message: Any) -> State:
    """Returns the state of a container, a config map or a secret."""
    status = ""
    if isinstance(message, container.Container):
        status = container.ContainerStatus.Name(message.status)
    return State(
        message.uid,
        message.name,
        message.namespace,
        version(message.etag),
        digest(message),
        dict(message.labels),
        status,
        message.annotations.get(MARKER, ""),
    )


def held(message: Any) -> Any:
    """Returns the resource in an event's message.

    It is the message itself, or the config map or secret in a Config.
    """
    if not isinstance(message, config.Config):
        return message
    return message.config_map if message.HasField("config_map") else message.secret


def entity(answer: Any) -> Any:
    """Returns the resource in a message of a watch, or None for a marker."""
    if isinstance(answer, watch_pb2.WatchResponse):
        kind = answer.resource.WhichOneof("kind")
        return None if kind is None else held(getattr(answer.resource, kind))
    field = "container" if "container" in answer.DESCRIPTOR.fields_by_name else "config"
    return held(getattr(answer, field)) if answer.HasField(field) else None
