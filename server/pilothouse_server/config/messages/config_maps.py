"""Config maps: value ↔ protobuf."""

from __future__ import annotations

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_server.config.messages.common import common_fields
from pilothouse_server.config.model import ConfigMap
from pilothouse_server.config.operations.config_maps import SingleKeys

CONFIG_MAP_UPDATABLE = frozenset({"data", "binary_data", "immutable", "labels", "annotations"})


def config_map(value: ConfigMap) -> pb.ConfigMap:
    """A config map as protobuf."""
    return pb.ConfigMap(data=value.data, binary_data=value.binary_data, **common_fields(value))


def render_config_map(value: ConfigMap) -> bytes:
    """A config map as an event holds it: inside the message that tells it from a secret."""
    return pb.Config(config_map=config_map(value)).SerializeToString()


def wanted_config_map(message: pb.ConfigMap) -> ConfigMap:
    """What a caller asks for; what only the server sets is left at its default."""
    return ConfigMap(
        name=message.name,
        data=dict(message.data),
        binary_data=dict(message.binary_data),
        immutable=message.immutable,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def single_keys(request: pb.UpdateConfigMapRequest) -> SingleKeys:
    """The single keys that an update changes."""
    return SingleKeys(dict(request.set_data), dict(request.set_binary_data), tuple(request.remove_keys))
