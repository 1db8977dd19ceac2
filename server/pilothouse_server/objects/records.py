"""The audit record of a changed document: the paths that differ, with both values; never the whole text."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pilothouse_server.objects import documents
from pilothouse_server.objects.facts import SecretPaths
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.rpc.credential_names import REDACTED, reads_like_a_credential
from pilothouse_server.values.document_paths import selected

_MOST_PATHS: Final = 64
_MOST_CHARACTERS: Final = 256


def changes(
    before: CarriedObject, after: CarriedObject, secret_paths: SecretPaths = ()
) -> dict[str, dict[str, Any]]:
    """Returns the previous and the new value of each path of the document that differs, at most 64 paths.

    Values at `secret_paths`, and values whose keys look like a credential's, are only marked as changed. Lists and
    objects are recorded as digests.
    """
    was, now = documents.manifest(before), documents.manifest(after)
    masked = [_texts(document, path) for document in (was, now) for path in secret_paths]
    secrets = {place for places in masked for place in places}
    found: dict[str, dict[str, Any]] = {}
    for path, old, new in documents.differences(was, now):
        if len(found) == _MOST_PATHS:
            found["[truncated]"] = {"from": None, "to": None}
            break
        name = path.rpartition(".")[2]
        is_secret = reads_like_a_credential(name) or any(_covers(place, path) for place in secrets)
        found[path[:1024]] = {
            key: REDACTED if is_secret and value is not None else _shown(value)
            for key, value in (("from", old), ("to", new))
        }
    return found


def _covers(place: str, path: str) -> bool:
    """Returns whether one of two paths contains the other."""
    return (
        path == place
        or path.startswith((f"{place}.", f"{place}["))
        or place.startswith((f"{path}.", f"{path}["))
    )


def _texts(document: Any, path: tuple[str, ...]) -> list[str]:
    return [documents.path_of(place) for place, _ in selected(document, path)]


def _shown(value: Any) -> Any:
    if isinstance(value, dict | list):
        text = json.dumps(value, separators=(",", ":"), sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    if isinstance(value, str):
        return value[:_MOST_CHARACTERS]
    # The audit log hashes a float as text.
    return str(value) if isinstance(value, float) else value
