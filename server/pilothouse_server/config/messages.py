"""Config maps, secrets and keys: value ↔ protobuf; what differs between the two.

No answer made here holds a value of a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_server.config.model import ConfigMap, Secret
from pilothouse_server.config.operations.config_maps import SingleKeys
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences

# The values of a secret: given, and never shown again.
_VALUES = ("data", "string_data")

CONFIG_MAP: Converter[ConfigMap, pb.ConfigMap] = Converter(
    ConfigMap,
    pb.ConfigMap,
    Differences(struct_only=("id", "namespace_ref", "taken_over")),
    parts=(wire.CONDITION,),
)
SECRET: Converter[Secret, pb.Secret] = Converter(
    Secret,
    pb.Secret,
    Differences(struct_only=("id", "namespace_ref", "taken_over"), message_only=_VALUES),
    parts=(wire.CONDITION,),
)
SECRET_UPDATABLE = SECRET.updatable | {*_VALUES}


def render_config_map(value: ConfigMap) -> bytes:
    """Returns a config map as an event holds it: inside the message that distinguishes it from a secret."""
    return pb.Config(config_map=CONFIG_MAP.to_proto(value)).SerializeToString()


def render_secret(value: Secret) -> bytes:
    """Returns a secret as an event holds it: inside the message that distinguishes it from a config map."""
    return pb.Config(secret=SECRET.to_proto(value)).SerializeToString()


def single_keys(request: pb.UpdateConfigMapRequest) -> SingleKeys:
    """Returns the single keys that an update changes."""
    return SingleKeys(dict(request.set_data), dict(request.set_binary_data), tuple(request.remove_keys))


def asked_secret(message: pb.Secret) -> Asked:
    """Returns what a caller asks for, with the values given."""
    return Asked(
        secret=SECRET.from_proto(message), data=dict(message.data), string_data=dict(message.string_data)
    )


def asked_change(request: pb.UpdateSecretRequest, paths: tuple[str, ...]) -> Asked:
    """Returns what an update asks for: the fields that `paths` names, and single keys."""
    return replace(
        asked_secret(request.secret),
        paths=paths,
        set_data=dict(request.set_data),
        remove_keys=tuple(request.remove_keys),
    )


def encryption_keys(uses: Mapping[str, int], active: str, held: Collection[str]) -> list[pb.EncryptionKey]:
    """Returns every key that is in the key file or that something depends on; `held`: those of the key file."""
    known = {*held, *uses, *([active] if active else [])}
    return [
        pb.EncryptionKey(key_id=key, uses=uses.get(key, 0), active=key == active, in_key_file=key in held)
        for key in sorted(known)
    ]
