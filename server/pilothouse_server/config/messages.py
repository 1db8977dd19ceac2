"""Config maps, secrets and keys: value ↔ protobuf; the differences between the two.

No response built here contains a value of a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_server.config.model import ConfigMap, Kind, Secret
from pilothouse_server.config.operations.config_maps import SingleKeys
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences
from pilothouse_server.rpc.message_cache import MessageCache

# The values of a secret: callers send them, and no response contains them.
_VALUES = ("data", "string_data")

CONFIG_MAP: Converter[ConfigMap, pb.ConfigMap] = Converter(
    ConfigMap,
    pb.ConfigMap,
    Differences(struct_only=("id", "namespace_ref", "taken_over", "row_version")),
    parts=(wire.CONDITION,),
)
SECRET: Converter[Secret, pb.Secret] = Converter(
    Secret,
    pb.Secret,
    Differences(struct_only=("id", "namespace_ref", "taken_over", "row_version"), message_only=_VALUES),
    parts=(wire.CONDITION,),
)
SECRET_UPDATABLE = SECRET.updatable | {*_VALUES}
# The creator's name can change without the row. In an event, each is in the field of `Config` for its kind.
_EITHER = pb.Config.DESCRIPTOR.fields_by_name
CONFIG_MAP_CACHE: MessageCache[ConfigMap, pb.ConfigMap] = MessageCache(
    CONFIG_MAP, ("created_by",), within=_EITHER["config_map"]
)
SECRET_CACHE: MessageCache[Secret, pb.Secret] = MessageCache(
    SECRET, ("created_by",), within=_EITHER["secret"]
)
CACHE: dict[Kind, MessageCache[Any, Any]] = {"config_map": CONFIG_MAP_CACHE, "secret": SECRET_CACHE}


def single_keys(request: pb.UpdateConfigMapRequest) -> SingleKeys:
    """Returns the single keys that an update changes."""
    return SingleKeys(dict(request.set_data), dict(request.set_binary_data), tuple(request.remove_keys))


def asked_secret(message: pb.Secret) -> Asked:
    """Returns the requested resource, with the given values."""
    return Asked(
        secret=SECRET.from_proto(message), data=dict(message.data), string_data=dict(message.string_data)
    )


def asked_change(request: pb.UpdateSecretRequest, paths: tuple[str, ...]) -> Asked:
    """Returns the requested update: the fields that `paths` names, and single keys."""
    return replace(
        asked_secret(request.secret),
        paths=paths,
        set_data=dict(request.set_data),
        remove_keys=tuple(request.remove_keys),
    )


def encryption_keys(uses: Mapping[str, int], active: str, held: Collection[str]) -> list[pb.EncryptionKey]:
    """Returns every key that is in the key file or that a row depends on; `held`: those of the key file."""
    known = {*held, *uses, *([active] if active else [])}
    return [
        pb.EncryptionKey(key_id=key, uses=uses.get(key, 0), active=key == active, in_key_file=key in held)
        for key in sorted(known)
    ]
