"""An object that the platform carries as it is: its whole document, without the fields that a cluster sets."""

from __future__ import annotations

from typing import Any

from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import ManifestAccount, ManifestObject, metadata
from pilothouse_manifests.translator.nodes import MappingEntry, ScalarNode, plain

# A ServiceAccount with these alone is made by the platform with the container that names it.
_OF_PLAIN_ACCOUNTS = frozenset({"apiVersion", "kind", "metadata", "status"})
_NAMED = frozenset({"name", "namespace", "creationTimestamp"})


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


def convert_account(root: Fields, namespace: str) -> ManifestAccount:
    """Converts the document of a ServiceAccount that `is_plain_account`."""
    converted = convert_object(root, namespace)
    return ManifestAccount(converted.place, converted.reporter, converted.name)


def object_of_account(account: ManifestAccount) -> ManifestObject:
    """Returns a ServiceAccount that no workload of the manifest names as an object of its own."""
    document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account.name}}
    return ManifestObject(account.place, account.reporter, "v1", "ServiceAccount", account.name, document)


def is_plain_account(root: Fields) -> bool:
    """Returns whether the document of a ServiceAccount says nothing but its name."""
    stated = root.node.entries.get("metadata")
    if not set(root.node.entries) <= _OF_PLAIN_ACCOUNTS or stated is None:
        return False
    entries: dict[str, MappingEntry] = getattr(stated.value, "entries", {})
    return all(key in _NAMED or _is_null(entry) for key, entry in entries.items())


def _is_null(entry: MappingEntry) -> bool:
    return isinstance(entry.value, ScalarNode) and entry.value.kind == "null"
