"""Revisions of an application: its documents, each stored once under its digest, those of Secrets encrypted.

The digest of a Secret is an HMAC with a key of the installation, so that nobody can test guessed values against it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse_server.applications.comparison import PERMISSIONS
from pilothouse_server.applications.model import (
    ApplicationChange,
    ChangeAction,
    FieldDifference,
    GivenDocument,
    MemberNoun,
    RevisionDocument,
)
from pilothouse_server.authorization.access import May
from pilothouse_server.objects.masking import SecretMask
from pilothouse_server.objects.model import ObjectTexts
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.values.field_differences import changed_values

# Set by kubectl: a copy of the whole object, which may contain values of a Secret.
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_LIST: Final = ("v1", "List")
_SECRET: Final = ("v1", "Secret")
_NOUNS: Final[Mapping[str, MemberNoun]] = {
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"), "container"),
    "Service": "service",
    "ConfigMap": "config_map",
    "Secret": "secret",
    "PersistentVolumeClaim": "volume",
}


class KeptDocument(msgspec.Struct, frozen=True):
    """A document as a revision stores it, with its text."""

    document: RevisionDocument
    text: str

    def __repr__(self) -> str:
        return f"KeptDocument({self.document.kind}/{self.document.name})"


async def kept_documents(given: Sequence[GivenDocument], key: bytes) -> list[KeptDocument]:
    """Returns the documents of a request, items of lists one by one. Texts that are not objects are left out."""
    found, share = list[KeptDocument](), Share()
    for each in given:
        for item in _objects(each.json):
            found.append(_kept(item, each.source, key))
            await share.used()
    return found


def summary(documents: Sequence[KeptDocument]) -> list[str]:
    """Returns kind, name and digest of each document, for the record of the call."""
    return [f"{each.document.kind}/{each.document.name} {each.document.digest}" for each in documents]


class RevisionText(msgspec.Struct, frozen=True):
    """A document of a revision with its text; None if the values of this Secret were purged.

    `masked`: values that the reader may not see are masked in the text.
    """

    document: RevisionDocument
    text: str | None
    masked: bool = False

    @property
    def parsed(self) -> dict[str, Any]:
        """The document as a value; without a text only its kind and name."""
        if self.text is None:
            return {"apiVersion": "v1", "kind": self.document.kind, "metadata": {"name": self.document.name}}
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def key(self) -> tuple[str, str, str]:
        """Version, kind and name of the object."""
        return str(self.parsed.get("apiVersion", "")), self.document.kind, self.document.name

    def shown(self, may: May) -> dict[str, Any]:
        """Returns the document as a caller may see it.

        A Secret has no values, and an object that the caller may not get has only its kind and name.
        """
        document = self.parsed
        if not may(f"{PERMISSIONS[noun_of(self.document.kind)]}.get"):
            return {
                "apiVersion": document.get("apiVersion", ""),
                "kind": self.document.kind,
                "metadata": {"name": self.document.name},
            }
        if self.document.secret:
            for name in ("data", "stringData"):
                if isinstance(document.get(name), dict):
                    document[name] = dict.fromkeys(document[name], "")
        return document


def readable(text: RevisionText, mask: SecretMask, namespace: str, cluster_name: str) -> RevisionText:
    """Returns the document with the values masked that the caller may not see."""
    if text.text is None or noun_of(text.document.kind) != "object":
        return text
    group = text.key[0].rpartition("/")[0]
    seen = mask.texts(ObjectTexts(text.text, "", namespace, cluster_name, group, text.document.kind)).document
    return text if seen == text.text else RevisionText(text.document, seen, masked=True)


def noun_of(kind: str) -> MemberNoun:
    """Returns the noun of the objects of a kind."""
    return _NOUNS.get(kind, "object")


def difference(
    before: Sequence[RevisionText], after: Sequence[RevisionText], may: May
) -> list[ApplicationChange]:
    """Returns the changes from one revision to another, by the fields of the documents."""
    old, new = ({each.key: each for each in side} for side in (before, after))
    changes = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was is not None and now is not None and was.document.digest == now.document.digest:
            continue
        action: ChangeAction = "create" if was is None else "prune" if now is None else "update"
        fields: tuple[FieldDifference, ...] = ()
        if was is not None and now is not None:
            found = changed_values(was.shown(may), now.shown(may))
            fields = tuple(FieldDifference(*each) for each in found)
            if was.document.secret:
                fields = (*fields, FieldDifference("data", masked=True))
        changes.append(ApplicationChange(*key, action, fields))
    return changes


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    if (document.get("apiVersion"), document.get("kind")) == _LIST:
        items = document.get("items")
        return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
    return [document]


def _kept(document: dict[str, Any], source: str, key: bytes) -> KeptDocument:
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and isinstance(annotations := metadata.get("annotations"), dict):
        annotations.pop(_LAST_APPLIED, None)
    name = str(metadata.get("name", "") if isinstance(metadata, dict) else "")[:253]
    kind = str(document.get("kind", ""))[:63]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    is_secret = (document.get("apiVersion"), kind) == _SECRET
    encoded = text.encode("utf-8", "replace")
    digest = hmac.new(key, encoded, hashlib.sha256) if is_secret else hashlib.sha256(encoded)
    return KeptDocument(
        RevisionDocument(digest.hexdigest(), kind, name, source, secret=name if is_secret else ""), text
    )
