"""A ConfigMap, and a Secret.

Values of a Secret are in no message: a problem names the key alone.
"""

from __future__ import annotations

import base64
import binascii
import re

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_client.apply.fields import Fields, TextEntry, texts_of
from pilothouse_client.apply.manifest import DNS_LABEL, ConfigObject, Metadata, metadata

_SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"


def convert_config_map(root: Fields, namespace: str) -> ConfigObject:
    """The config map that the document describes; whether it is usable says its reporter."""
    own = _metadata(root, namespace)
    data = root.text_map("data")
    binary = root.text_map("binaryData")
    _check_once(root, data, binary)
    message = pb.ConfigMap(
        name=own.name,
        data=texts_of(data),
        binary_data=_decoded(root, binary),
        immutable=bool(root.boolean("immutable")),
        labels=texts_of(own.labels),
        annotations=texts_of(own.annotations),
    )
    return ConfigObject(root.place, root.reporter, "config_map", message)


def convert_secret(root: Fields, namespace: str) -> ConfigObject:
    """The secret that the document describes. `stringData` wins over `data`, as it does in Kubernetes."""
    own = _metadata(root, namespace)
    type_ = root.text("type")
    if type_ == _SERVICE_ACCOUNT_TOKEN:
        message = "cannot be represented: tokens of service accounts are made by the cluster"
        root.reporter.unusable(root.place_of("type"), root.path_of("type"), message)
    data = _decoded(root, root.text_map("data", hidden=True))
    text = texts_of(root.text_map("stringData", hidden=True))
    secret = pb.Secret(
        name=own.name,
        type=type_ or "Opaque",
        data=data | {key: value.encode() for key, value in text.items()},
        immutable=bool(root.boolean("immutable")),
        labels=texts_of(own.labels),
        annotations=texts_of(own.annotations),
    )
    return ConfigObject(root.place, root.reporter, "secret", secret)


def _metadata(root: Fields, namespace: str) -> Metadata:
    with root.fields("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            message = f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            root.reporter.invalid(stated.place_of("name"), stated.path_of("name"), message)
    return own


def _check_once(root: Fields, data: dict[str, TextEntry], binary: dict[str, TextEntry]) -> None:
    for key, entry in binary.items():
        if key in data:
            root.reporter.invalid(
                entry.place, entry.path, f"expected each key once, found {key!r} in data, too"
            )


def _decoded(root: Fields, entries: dict[str, TextEntry]) -> dict[str, bytes]:
    values = {}
    for key, entry in entries.items():
        try:
            # Kubernetes passes over line breaks, and over nothing else.
            text = entry.text.replace("\n", "").replace("\r", "")
            values[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            root.reporter.invalid(entry.place, entry.path, "expected base64, found something else")
    return values
