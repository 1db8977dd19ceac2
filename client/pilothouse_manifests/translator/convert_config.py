"""Converts ConfigMaps and Secrets.

No message contains a value of a Secret: a problem names only the key.
"""

from __future__ import annotations

import re

from pilothouse_manifests.fields import Values
from pilothouse_manifests.reading import read
from pilothouse_manifests.table import CONFIG_MAP, SECRET
from pilothouse_manifests.translator.fields import Fields, TextEntry, texts_of
from pilothouse_manifests.translator.manifest import ManifestConfig, Metadata, metadata
from pilothouse_manifests.volumes import DNS_SUBDOMAIN

_SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"


def convert_config_map(root: Fields, namespace: str) -> ManifestConfig:
    """Returns the config map of the document; its reporter shows whether it is usable."""
    own = _metadata(root, namespace)
    data = root.text_map("data")
    _check_once(root, data, root.text_map("binaryData"))
    config_map = {**(read(CONFIG_MAP, root) or {}), **_said(own)}
    return ManifestConfig(root.place, root.reporter, "config_map", config_map)


def convert_secret(root: Fields, namespace: str) -> ManifestConfig:
    """Returns the secret of the document.

    `stringData` overrides `data`, as in Kubernetes."""
    own = _metadata(root, namespace)
    values = read(SECRET, root) or {}
    if values.get("type") == _SERVICE_ACCOUNT_TOKEN:
        root.unusable("type", "cannot be represented: the cluster makes tokens of service accounts itself")
    text = texts_of(root.text_map("stringData", hidden=True))
    data = values.pop("data", {}) | {key: value.encode() for key, value in text.items()}
    secret = {"type": "Opaque", **values, "data": data, **_said(own)}
    return ManifestConfig(root.place, root.reporter, "secret", secret)


def _said(own: Metadata) -> Values:
    return {"name": own.name, "labels": texts_of(own.labels), "annotations": texts_of(own.annotations)}


def _metadata(root: Fields, namespace: str) -> Metadata:
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_SUBDOMAIN, own.name):
            stated.invalid(
                "name", f"expected at most 253 lower-case letters, digits, '-' and '.', found {own.name!r}"
            )
    return own


def _check_once(root: Fields, data: dict[str, TextEntry], binary: dict[str, TextEntry]) -> None:
    for key, entry in binary.items():
        if key in data:
            root.reporter.invalid(
                entry.place, entry.path, f"expected each key once, found {key!r} in data, too"
            )
