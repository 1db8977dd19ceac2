"""Secrets: value ↔ protobuf. No answer made here holds a value of a secret."""

from __future__ import annotations

from dataclasses import replace

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_server.config.messages.common import common_fields
from pilothouse_server.config.model import Secret
from pilothouse_server.config.operations.secrets import Asked

SECRET_UPDATABLE = frozenset({"data", "string_data", "immutable", "labels", "annotations"})


def secret(value: Secret) -> pb.Secret:
    """A secret as protobuf, without its values."""
    return pb.Secret(type=value.type, key_sizes=value.key_sizes, key_id=value.key_id, **common_fields(value))


def render_secret(value: Secret) -> bytes:
    """A secret as an event holds it: inside the message that tells it from a config map."""
    return pb.Config(secret=secret(value)).SerializeToString()


def asked_change(request: pb.UpdateSecretRequest, paths: tuple[str, ...]) -> Asked:
    """What an update asks for: the fields that `paths` names, and single keys."""
    return replace(
        asked_secret(request.secret),
        paths=paths,
        set_data=dict(request.set_data),
        remove_keys=tuple(request.remove_keys),
    )


def asked_secret(message: pb.Secret) -> Asked:
    """What a caller asks for, with the values given."""
    return Asked(
        secret=Secret(
            name=message.name,
            type=message.type,
            immutable=message.immutable,
            labels=dict(message.labels),
            annotations=dict(message.annotations),
        ),
        data=dict(message.data),
        string_data=dict(message.string_data),
    )
