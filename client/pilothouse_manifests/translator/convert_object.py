"""Converts an object that the platform carries unchanged: the whole document without the fields that a cluster sets."""

from __future__ import annotations

from typing import Any

from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import ManifestObject, metadata
from pilothouse_manifests.translator.nodes import plain


def convert_object(root: Fields, namespace: str) -> ManifestObject:
    """Converts the document of a carried kind.

    Problems go to its reporter; discard the result if `reporter.usable` is false.
    """
    api_version, kind = root.text("apiVersion"), root.text("kind")
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not own.name:
            stated.invalid("name", "expected a value, found none")
    named: dict[str, Any] = {"name": own.name}
    for key, entries in (("labels", own.labels), ("annotations", own.annotations)):
        if entries:
            named[key] = texts_of(entries)
    document: dict[str, Any] = {"apiVersion": api_version, "kind": kind, "metadata": named}
    for name in root.names():
        if name in ("apiVersion", "kind", "metadata", "status"):
            continue
        item = root.item(name)
        if item is not None:
            document[name] = plain(item.node)
    return ManifestObject(root.place, root.reporter, api_version, kind, own.name, document)
