"""Copies of JSON documents, and the sharing of equal parts of two of them.

Every write copies objects of some kilobytes. copy.deepcopy walks them in Python and took half of the simulator's
time; encoding and decoding takes a thirtieth of it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

Document = TypeVar("Document")


def copy_json(document: Document) -> Document:
    """An independent copy of a JSON value (dicts with text keys, lists, texts, numbers, booleans, None)."""
    copied: Document = orjson.loads(orjson.dumps(document))
    return copied


def share_unchanged(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Lets `new` point to the parts of `old` that are equal, two levels deep.

    A history keeps many versions of an object that differ in little; both are immutable from here on.
    """
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict | list) and value == before:
            new[name] = before
        elif isinstance(value, dict) and isinstance(before, dict):
            for inner, child in value.items():
                if isinstance(child, dict | list) and child == before.get(inner):
                    value[inner] = before[inner]
