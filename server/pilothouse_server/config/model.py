"""Values of config maps and secrets, independent of storage, transport and clusters.

A `Secret` has the names and sizes of its values, never a value. Values are passed as `Values` from the request to the
encryption and from the decryption to the response. They are never part of anything that is shown or logged.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pilothouse_server.values.resources import Condition, Reconciled

Kind = Literal["config_map", "secret"]
# The values of a secret, by key.
Values = dict[str, bytes]

OPAQUE = "Opaque"


class Config(Reconciled, msgspec.Struct, frozen=True, kw_only=True):
    """Common fields of both kinds. `taken_over`: uid of the object on the cluster that an import took over."""

    id: int = 0
    uid: str = ""
    name: str
    kubernetes_name: str = ""
    taken_over: str = ""
    immutable: bool = False
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()


class ConfigMap(Config, msgspec.Struct, frozen=True, kw_only=True):
    """`data` is text, `binary_data` any bytes; a key is in only one of the two."""

    data: dict[str, str] = {}
    binary_data: dict[str, bytes] = {}


class Secret(Config, msgspec.Struct, frozen=True, kw_only=True):
    """`key_sizes`: sizes in bytes by key. `key_id`: the key-encryption key that wraps its data key."""

    type: str = OPAQUE
    key_sizes: dict[str, int] = {}
    key_id: str = ""
