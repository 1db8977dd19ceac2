"""Sets of field paths, and the operations on typed objects that server-side apply consists of.

A path is a tuple of elements as they appear in `fieldsV1`: `f:name` for a field or map key, `k:{"name":"app"}` for an
item of a keyed list, `v:"x"` for an item of a set. A set of fields is a plain Python set of such paths, so that union,
difference and intersection are the set operators. The behaviour follows the structured-merge-diff library of
Kubernetes: atomic lists, maps and structs are leaves; an item of a keyed list is itself a member (`.`), in addition to
its fields; in a comparison of two objects, a container that one of them lacks is a member too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pilothouse_simulator.store.schema import (
    KEY_DEFAULTS,
    ListType,
    MapType,
    SchemaScalar,
    SchemaType,
    Struct,
)

JsonObject = dict[str, Any]
Path = tuple[str, ...]
FieldSet = set[Path]


def item_key(kind: ListType, item: Any) -> str:
    """Returns the path element of a list item; keyed lists fill defaults of missing keys."""
    if kind.relation == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    keys: JsonObject = {}
    for name in sorted(kind.keys):
        value = item.get(name) if isinstance(item, dict) else None
        if value is None and isinstance(kind.item, Struct):
            value = kind.item.defaults.get(name, KEY_DEFAULTS.get((kind.item.name, name)))
        if value is not None:
            keys[name] = value
    return "k:" + json.dumps(keys, separators=(",", ":"))


def is_leaf(kind: SchemaType, value: Any) -> bool:
    """Returns whether the value is owned as a whole."""
    if isinstance(kind, SchemaScalar) or not isinstance(value, dict | list) or not value:
        return True
    if isinstance(kind, ListType):
        return kind.relation == "atomic"
    return kind.atomic or isinstance(value, list)


def children(kind: SchemaType, value: Any) -> Iterator[tuple[str, SchemaType | None, Any]]:
    """Yields path element, type and value of each child of a granular container. Unknown fields have no type."""
    if isinstance(kind, Struct) and isinstance(value, dict):
        for name, child in value.items():
            yield "f:" + name, kind.fields.get(name), child
    elif isinstance(kind, MapType) and isinstance(value, dict):
        for name, child in value.items():
            yield "f:" + name, kind.item, child
    elif isinstance(kind, ListType) and isinstance(value, list):
        for child in value:
            yield item_key(kind, child), kind.item, child


def field_set(kind: SchemaType, value: Any, *, named_containers: bool = False) -> FieldSet:
    """Returns the fields of an object: leaves, empty containers and items of keyed lists and sets.

    With `named_containers`, the result also has every struct field above them.
    """
    found: FieldSet = set()
    _collect(kind, value, (), found, named_containers)
    return found


def _collect(kind: SchemaType, value: Any, path: Path, found: FieldSet, named: bool) -> None:
    if is_leaf(kind, value):
        if path:
            found.add(path)
        return
    for element, child_kind, child in children(kind, value):
        child_path = (*path, element)
        if isinstance(kind, ListType) or (named and isinstance(kind, Struct)):
            found.add(child_path)
        if child_kind is None:
            found.add(child_path)
        else:
            _collect(child_kind, child, child_path, found, named)


def with_named_containers(kind: SchemaType, fields: FieldSet) -> FieldSet:
    """Returns the fields and the struct fields above them: the owner of a member also owns its containers."""
    result = set(fields)
    for path in fields:
        current: SchemaType | None = kind
        for depth, element in enumerate(path[:-1], start=1):
            if isinstance(current, Struct):
                result.add(path[:depth])
            current = child_type(current, element)
    return result


def child_type(kind: SchemaType | None, element: str) -> SchemaType | None:
    """Returns the type below one path element."""
    if isinstance(kind, Struct):
        return kind.fields.get(element[2:])
    if isinstance(kind, MapType | ListType):
        return kind.item
    return None


class FieldComparison:
    """The difference of two objects: `added`, `modified` and `removed` paths."""

    def __init__(self) -> None:
        self.added: FieldSet = set()
        self.modified: FieldSet = set()
        self.removed: FieldSet = set()

    @property
    def same(self) -> bool:
        """Returns whether nothing differs."""
        return not (self.added or self.modified or self.removed)


_ABSENT = object()


def compare(kind: SchemaType, before: Any, after: Any) -> FieldComparison:
    """Compares two objects. Equal subtrees are skipped."""
    result = FieldComparison()
    _compare(kind, before, after, (), result)
    return result


def _compare(kind: SchemaType | None, before: Any, after: Any, path: Path, result: FieldComparison) -> None:
    if before == after and before is not _ABSENT and type(before) is type(after):
        return
    before_leaf = before is _ABSENT or kind is None or is_leaf(kind, before)
    after_leaf = after is _ABSENT or kind is None or is_leaf(kind, after)
    if before_leaf and after_leaf:
        if before is _ABSENT:
            result.added.add(path)
        elif after is _ABSENT:
            result.removed.add(path)
        elif before != after:
            result.modified.add(path)
        return
    if before is _ABSENT and path:
        result.added.add(path)
    elif after is _ABSENT and path:
        result.removed.add(path)
    old = {} if kind is None else {element: (t, v) for element, t, v in children(kind, _or_none(before))}
    new = {} if kind is None else {element: (t, v) for element, t, v in children(kind, _or_none(after))}
    for element in [*old, *(element for element in new if element not in old)]:
        child_kind = (old.get(element) or new[element])[0]
        old_value = old[element][1] if element in old else _ABSENT
        new_value = new[element][1] if element in new else _ABSENT
        _compare(child_kind, old_value, new_value, (*path, element), result)


def _or_none(value: Any) -> Any:
    return None if value is _ABSENT else value


def merge(kind: SchemaType | None, live: Any, applied: Any) -> Any:
    """Returns the live value with the applied configuration merged into it."""
    if applied is None or kind is None or live is None or is_leaf(kind, applied):
        empty_container = isinstance(applied, dict | list) and not applied
        keep = empty_container and kind is not None and live and not is_leaf(kind, live)
        return live if keep else applied
    if isinstance(kind, ListType):
        return _merge_lists(kind, live if isinstance(live, list) else [], applied)
    merged = dict(live) if isinstance(live, dict) else {}
    for element, child_kind, child in children(kind, applied):
        name = element[2:]
        merged[name] = merge(child_kind, merged.get(name), child)
    return merged


def _merge_lists(kind: ListType, live: list[Any], applied: list[Any]) -> list[Any]:
    """Merges two keyed lists.

    Shared items follow the applied order; an item that is only in the live list stays before the next shared item.
    """
    live_items = {item_key(kind, item): item for item in live}
    applied_keys = [item_key(kind, item) for item in applied]
    shared = set(applied_keys)
    waiting = [item_key(kind, item) for item in live]
    result: list[Any] = []
    for key, item in zip(applied_keys, applied, strict=True):
        if key in live_items:
            while waiting and waiting[0] != key:
                skipped = waiting.pop(0)
                if skipped not in shared:
                    result.append(live_items[skipped])
            if waiting:
                waiting.pop(0)
        result.append(merge(kind.item, live_items.get(key), item))
    result.extend(live_items[key] for key in waiting if key not in shared)
    return result


def remove(kind: SchemaType | None, value: Any, paths: FieldSet) -> Any:
    """Returns the value without the members of `paths` (and all below them)."""
    return _remove(kind, value, (), paths, {path[:depth] for path in paths for depth in range(len(path))})


def _remove(kind: SchemaType | None, value: Any, path: Path, paths: FieldSet, inner: FieldSet) -> Any:
    if kind is None or is_leaf(kind, value) or path not in inner:
        return value
    kept: list[tuple[str, Any]] = []
    for element, child_kind, child in children(kind, value):
        child_path = (*path, element)
        if child_path not in paths:
            kept.append((element, _remove(child_kind, child, child_path, paths, inner)))
    if isinstance(kind, ListType):
        return [child for _, child in kept]
    return {element[2:]: child for element, child in kept}


def to_fields_v1(fields: FieldSet) -> JsonObject:
    """Returns the nested `fieldsV1` document; `.` marks a member that also has children."""
    document: JsonObject = {}
    inner = {path[:depth] for path in fields for depth in range(1, len(path))}
    for path in sorted(fields):
        node = document
        for element in path:
            node = node.setdefault(element, {})
        if path in inner:
            node["."] = {}
    return document


def from_fields_v1(document: JsonObject) -> FieldSet:
    """Parses a `fieldsV1` document; the inverse of `to_fields_v1`."""
    found: FieldSet = set()

    def walk(node: JsonObject, path: Path) -> None:
        for element, child in node.items():
            if element == ".":
                found.add(path)
                continue
            child_path = (*path, element)
            if child:
                walk(child, child_path)
            else:
                found.add(child_path)

    walk(document, ())
    return found


def describe(path: Path) -> str:
    """Formats a path as in conflict messages: `.spec.containers[name="app"].image`."""
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += "." + element[2:]
        elif element.startswith("k:"):
            keys = json.loads(element[2:])
            text += "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items()) + "]"
        else:
            text += f"[={element[2:]}]"
    return text
