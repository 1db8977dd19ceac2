"""Rules of an object's metadata that hold for every kind: names, fields that clients cannot change, generation.

Pure functions on objects; the store calls them at each write.
"""

from __future__ import annotations

import random
from typing import Any

from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

# The letters Kubernetes uses for generated names: no vowels, no digits that look like letters.
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp",
                    "deletionGracePeriodSeconds")  # fmt: skip


def name_object(metadata: JsonObject) -> None:
    """Fills metadata.name from generateName with five random letters."""
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(random.choices(_NAME_LETTERS, k=5))
        metadata["name"] = f"{metadata['generateName'][:58]}{suffix}"


def keep_system_metadata(metadata: JsonObject, stored: JsonObject) -> None:
    """Restores the stored values of the fields that clients cannot change."""
    for name in _SYSTEM_METADATA:
        if name in stored:
            metadata[name] = stored[name]
        else:
            metadata.pop(name, None)
    if "managedFields" not in metadata and "managedFields" in stored:
        metadata["managedFields"] = copy_json(stored["managedFields"])


def raises_generation(resource: ResourceType, obj: JsonObject, old: JsonObject) -> bool:
    """Returns whether this change raises metadata.generation."""
    if "spec" in obj or "spec" in old:
        if obj.get("spec") != old.get("spec"):
            return True
    elif _content(obj) != _content(old):
        return True
    if not resource.generation_on_annotations:
        return False
    return bool(obj["metadata"].get("annotations") != old["metadata"].get("annotations"))


def same_content(obj: JsonObject, old: JsonObject) -> bool:
    """Returns whether a write changes nothing, apart from the times in managedFields."""
    return _content(obj) == _content(old) and _comparable_metadata(obj["metadata"]) == _comparable_metadata(
        old["metadata"]
    )


def _content(obj: JsonObject) -> JsonObject:
    return {name: value for name, value in obj.items() if name != "metadata"}


def _comparable_metadata(metadata: JsonObject) -> JsonObject:
    comparable = {key: value for key, value in metadata.items() if value not in ({}, [], None)}
    comparable["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in metadata.get("managedFields") or []
    ]
    return comparable
