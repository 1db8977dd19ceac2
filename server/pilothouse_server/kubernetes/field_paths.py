"""Fields of objects by their path in the API's syntax, `.spec.template.spec.containers[name="main"].image`.

Server-side apply names a contested field in this syntax. The syntax does not quote the keys of maps
(`.metadata.labels.a.b/c`), so a path can only be resolved against an object: the longest key with which the whole path
can be resolved is used.

Kubernetes has two kinds of lists: those with keys (containers by name, ports by number and protocol), with items that
are fields of their own, and those that are one value. The table of both is in `pilothouse_manifests`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import msgspec

from pilothouse_manifests.paths import keyed_lists
from pilothouse_server.kubernetes.objects import Manifest

# Lists of whole objects, to each of which the cluster adds defaults. They have one owner, and so one path.
_LISTS_OF_OBJECTS = ("volumeClaimTemplates",)
_KEYED_LISTS = keyed_lists()

_KEY = re.compile(r'(?P<name>\w*)=(?P<value>"(?:[^"\\]|\\.)*"|[^,\]]+),?')
_MISSING = object()

Step = str | int


def find(document: Any, path: str) -> list[Step] | None:
    """Returns the keys and indexes that lead to a field; None if the document does not have it."""
    if not path:
        return []
    if path.startswith(".") and isinstance(document, dict):
        rest = path[1:]
        fitting = (
            key
            for key in document
            if rest.startswith(key) and rest[len(key) : len(key) + 1] in ("", ".", "[")
        )
        for key in sorted(fitting, key=len, reverse=True):
            if (further := find(document[key], rest[len(key) :])) is not None:
                return [key, *further]
    elif path.startswith("[") and isinstance(document, list):
        inside, rest = _bracket(path)
        for index, item in enumerate(document):
            if _fits(item, index, inside) and (further := find(item, rest)) is not None:
                return [index, *further]
    return None


def value_at(document: Any, path: str) -> Any:
    """Returns the field's value; None if the document does not have it."""
    steps = find(document, path)
    if steps is None:
        return None
    for step in steps:
        document = document[step]
    return document


def is_owned(live: Manifest, path: str, manager: str) -> bool:
    """Returns whether a manager has applied a field with its present value, perhaps among others."""
    steps = find(live, path)
    if steps is None:
        return False
    return any(
        _holds(entry.get("fieldsV1") or {}, live, steps)
        for entry in live["metadata"].get("managedFields") or ()
        if (entry.get("manager"), entry.get("operation")) == (manager, "Apply")
    )


def _holds(fields: Any, document: Any, steps: list[Step]) -> bool:
    """Returns whether a set of fields, in the form of `managedFields`, contains the field at the end of the steps."""
    for step in steps:
        document = document[step]
        if isinstance(step, str):
            fields = fields.get(f"f:{step}")
        else:
            fields = next((inner for key, inner in fields.items() if _is_item(key, document)), None)
        if fields is None:
            return False
    return True


def _is_item(key: str, item: Any) -> bool:
    """Returns whether a key of a list, `k:{"name":"main"}`, is an item's."""
    if not key.startswith("k:") or not isinstance(item, dict):
        return False
    identity: dict[str, Any] = msgspec.json.decode(key[2:])
    return all(item.get(name) == value for name, value in identity.items())


def elements(document: Any, path: str) -> list[str] | None:
    """Returns the path as steps of `managedFields`, `f:image`, `k:{"name":"main"}`; None if the field is not there.

    The keys of an item are those that the path names.
    """
    steps = find(document, path)
    if steps is None:
        return None
    found: list[str] = []
    rest = path
    for step in steps:
        if isinstance(step, str):
            found.append(f"f:{step}")
            rest = rest[1 + len(step) :]
        else:
            inside, rest = _bracket(rest)
            keys = {key["name"]: msgspec.json.decode(key["value"]) for key in _KEY.finditer(inside)}
            found.append(f"k:{msgspec.json.encode(dict(sorted(keys.items()))).decode()}")
    return found


def without(manifest: Manifest, paths: Iterable[str]) -> Manifest:
    """Returns a copy without these fields, and without mappings that become empty.

    Server-side apply would take ownership of an empty mapping.
    """
    left = deepcopy(manifest)
    for path in paths:
        if steps := find(left, path):
            _remove(left, steps)
    return left


def differing(manifest: Manifest, before: Manifest, after: Manifest) -> Iterator[str]:
    """Yields the paths of the manifest's fields that differ between two objects."""
    yield from _differing(manifest, before, after, "", "")


def _differing(said: Any, before: Any, after: Any, path: str, name: str) -> Iterator[str]:
    if isinstance(said, dict):
        if not said and (before is _MISSING) != (after is _MISSING):
            yield path
        for key, value in said.items():
            yield from _differing(value, _get(before, key), _get(after, key), f"{path}.{key}", key)
        return
    keys = _keys(name, said) if isinstance(said, list) else ()
    if keys:
        for item in said:
            identity = [(key, item.get(key)) for key in keys if key in item]
            words = ",".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in identity)
            at = f"{path}[{words}]"
            old, new = _item(before, identity), _item(after, identity)
            if old is _MISSING or new is _MISSING:
                yield at
            else:
                yield from _differing(item, old, new, at, "")
    elif name in _LISTS_OF_OBJECTS and _are_alike(said, before, after):
        parts = (
            part for three in zip(said, before, after, strict=True) for part in _differing(*three, path, "")
        )
        if any(True for _ in parts):
            yield path
    elif before != after:
        yield path


def _are_alike(*lists: Any) -> bool:
    return all(isinstance(each, list) for each in lists) and len({len(each) for each in lists}) == 1


def _keys(name: str, items: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(item, dict) for item in items):
        return ()
    # Two lists may have the same name: a container's ports and a Service's.
    rows = _KEYED_LISTS.get(name, ())
    return next((keys for keys in rows if all(keys[0] in item for item in items)), ())


def _get(document: Any, key: str) -> Any:
    return document.get(key, _MISSING) if isinstance(document, dict) else _MISSING


def _item(items: Any, identity: list[tuple[str, Any]]) -> Any:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and all(item.get(key) == value for key, value in identity):
            return item
    return _MISSING


def _bracket(path: str) -> tuple[str, str]:
    """Returns the text in the brackets at the beginning of the path, and the rest."""
    quoted = False
    for index, character in enumerate(path):
        if character == '"' and path[index - 1] != "\\":
            quoted = not quoted
        elif character == "]" and not quoted:
            return path[1:index], path[index + 1 :]
    return path[1:], ""


def _fits(item: Any, index: int, inside: str) -> bool:
    if inside.isdecimal():
        return index == int(inside)
    for key in _KEY.finditer(inside):
        value = msgspec.json.decode(key["value"])
        name = key["name"]
        there = item if not name else item.get(name, _MISSING) if isinstance(item, dict) else _MISSING
        # A key that is missing in an item has its default, and only a port's protocol has a default.
        if there != value and not (there is _MISSING and (name, value) == ("protocol", "TCP")):
            return False
    return True


def _remove(document: Any, steps: list[Step]) -> None:
    parents = [document]
    for step in steps[:-1]:
        parents.append(parents[-1][step])
    for parent, step in zip(reversed(parents), reversed(steps), strict=True):
        del parent[step]
        if parent:
            return
