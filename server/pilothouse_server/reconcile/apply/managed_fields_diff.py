"""Checks by reading whether an object on the cluster matches its manifest (managed-fields diff).

If it matches, an apply would change nothing. The object must have every value of the manifest, and we must own no other
field: fields of an earlier apply that are no longer desired return when a cluster is restored to an older state.

If the API writes a value in another form than it was sent, the result is False. Then the manifest is applied, which
does no harm.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse_server.kubernetes import field_paths, managed_fields
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import Manifest, Resource
from pilothouse_server.reconcile.queue.leased_client import LeasedClient

_NAMED = ("apiVersion", "kind")
# Maps that one manager owns as a whole.
_WHOLE = frozenset({"nodeSelector"})


async def live_matches_manifest(client: LeasedClient, resource: Resource[Any], manifest: Manifest) -> bool:
    """Returns whether the object exists and matches its manifest. Raises ClusterError."""
    metadata = manifest["metadata"]
    try:
        live = await client.read(resource, metadata.get("namespace"), metadata["name"])
    except NotFound:
        return False
    return matches_manifest(manifest, live)


def matches_manifest(manifest: Manifest, live: Manifest) -> bool:
    """Returns whether every field of the manifest matches, and no other field is ours."""
    owned = _owned(live)
    if owned is None:
        return False
    said = {name: value for name, value in manifest.items() if name not in _NAMED}
    differing = field_paths.differing(said, said, live)
    if any(not _is_left_out(path, said, live, owned) for path in differing):
        return False
    return not _is_more(owned, said)


def _is_left_out(path: str, said: Manifest, live: Manifest, owned: Manifest) -> bool:
    """Returns whether a field is missing only because the API leaves out false and empty values.

    It is still ours: a manager that removes a field also loses its ownership.
    """
    if field_paths.find(live, path) is not None or not _is_owned(path, said, owned):
        return False
    return field_paths.value_at(said, path) in (False, "")


def is_ours(path: str, said: Manifest, live: Manifest) -> bool:
    """Returns whether our apply owns a field that the manifest has."""
    owned = _owned(live)
    return owned is not None and _is_owned(path, said, owned)


def _is_owned(path: str, said: Manifest, owned: Manifest) -> bool:
    steps = field_paths.find(said, path)
    if steps is None:
        return False
    value: Any = said
    for step in steps:
        value = value[step]
        below = _step(owned, step, value)
        if below is None:
            return False
        if step in _WHOLE:
            return True
        owned = below
    return True


def _step(owned: Manifest, step: field_paths.Step, value: Any) -> Manifest | None:
    """Returns the owned fields below a field, or below an item of a list that has this value."""
    if isinstance(step, str):
        return owned.get(f"f:{step}")
    keyed = (key for key in owned if key.startswith("k:"))
    return next((owned[key] for key in keyed if _has(value, msgspec.json.decode(key[2:]))), None)


def _owned(live: Manifest) -> Manifest | None:
    """Returns the fields of an object that our applies own, in the API's form; None if there are none."""
    entry = managed_fields.entry_of(live, FIELD_MANAGER)
    return None if entry is None else dict(entry.get("fieldsV1") or {})


def _is_more(owned: Manifest, said: Any) -> bool:
    """Returns whether we own a field that the manifest does not have."""
    for step, below in owned.items():
        if step == ".":
            continue
        found, value = _below(step, said)
        if not found or (below and _is_more(below, value)):
            return True
    return False


def _below(step: str, said: Any) -> tuple[bool, Any]:
    """Follows one step (a field, an item by its keys, a value of a set).

    Returns whether the manifest has it, and its content.
    """
    kind, _, name = step.partition(":")
    if kind == "f":
        return (True, said[name]) if isinstance(said, dict) and name in said else (False, None)
    if not isinstance(said, list):
        return False, None
    wanted = msgspec.json.decode(name)
    if kind == "v":
        return wanted in said, None
    found = next((item for item in said if _has(item, wanted)), None)
    return found is not None, found


def _has(item: Any, keys: Manifest) -> bool:
    """Returns whether the item has these keys; only a port's protocol has a default."""
    return isinstance(item, dict) and all(
        item.get(key, "TCP" if key == "protocol" else None) == value for key, value in keys.items()
    )
