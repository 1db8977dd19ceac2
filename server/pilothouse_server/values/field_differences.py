"""The differences between two states of a resource, as JSON values: for revisions, and for the plan of an apply."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

_MOST_DIFFERENCES: Final = 100
_LONGEST_VALUE: Final = 1000


def changed_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns path, old and new value of the first 100 fields that differ; values are formatted by `shown`."""
    found = islice(differences(before, after), _MOST_DIFFERENCES)
    return [(path, shown(old), shown(new)) for path, old, new in found]


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields path, old and new value of each field that differs between two JSON objects; None for a missing value.

    Objects are compared field by field. A list of objects with names is compared by name, any other as a whole.
    """
    for name in sorted(before.keys() | after.keys()):
        old, new, path = before.get(name), after.get(name), f"{within}{name}"
        if old == new and type(old) is type(new):
            continue
        old_parts, new_parts = _parts(old), _parts(new)
        if old_parts is None or new_parts is None:
            yield path, old, new
        else:
            yield from differences(old_parts, new_parts, f"{path}.")


def shown(value: Any) -> str:
    """Returns a value as JSON, cut after 1,000 characters; empty for None."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _parts(value: Any) -> Mapping[str, Any] | None:
    """Returns an object unchanged, and a list as an object if each of its items has a unique name."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list) or not all(
        isinstance(item, Mapping) and item.get("name") for item in value
    ):
        return None
    named = {item["name"]: item for item in value}
    return named if len(named) == len(value) else None
