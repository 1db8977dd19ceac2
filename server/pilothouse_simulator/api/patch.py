"""JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.

All three functions take the stored document and return the changed one; they never change their input. Strategic merge
needs the schema: it merges keyed lists item by item, under the directives `$patch`, `$retainKeys`,
`$deleteFromPrimitiveList` and `$setElementOrder`.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.store.schema import ListType, MapType, SchemaType, Struct
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json

JsonObject = dict[str, Any]


def _rejected() -> ApiError:
    return api_errors.failure(
        422, "the server rejected our request due to an error in our request", "Invalid", {}
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """Applies a merge patch (RFC 7386): null removes a field, lists are replaced."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """Applies a JSON patch (RFC 6902). Raises 400 for a malformed patch, 422 for a failing test or a missing path."""
    if not isinstance(operations, list):
        kind = "object" if isinstance(operations, dict) else type(operations).__name__
        raise api_errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )
    document = copy_json(target)
    for operation in operations:
        try:
            document = _apply_operation(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise _rejected() from error
    return document


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise ValueError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _child(container: Any, part: str) -> Any:
    return container[int(part)] if isinstance(container, list) else container[part]


def _resolve(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = _child(document, part)
    return document


def _add(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    container = _resolve(document, parts[:-1])
    last = parts[-1]
    if isinstance(container, list):
        position = len(container) if last == "-" else int(last)
        if not 0 <= position <= len(container):
            raise IndexError(last)
        container.insert(position, value)
    elif isinstance(container, dict):
        container[last] = value
    else:
        raise TypeError(last)
    return document


def _take(document: Any, parts: list[str]) -> Any:
    container = _resolve(document, parts[:-1])
    return container.pop(int(parts[-1]) if isinstance(container, list) else parts[-1])


def _apply_operation(document: Any, operation: JsonObject) -> Any:
    name, parts = operation["op"], _pointer(operation["path"])
    if name == "add":
        return _add(document, parts, copy_json(operation["value"]))
    if name == "remove":
        _take(document, parts)
        return document
    if name == "replace":
        if not parts:
            return copy_json(operation["value"])
        container = _resolve(document, parts[:-1])
        _child(container, parts[-1])
        container[int(parts[-1]) if isinstance(container, list) else parts[-1]] = copy_json(
            operation["value"]
        )
        return document
    if name in ("move", "copy"):
        source = _pointer(operation["from"])
        value = _take(document, source) if name == "move" else copy_json(_resolve(document, source))
        return _add(document, parts, value)
    if name == "test":
        if _resolve(document, parts) != operation.get("value"):
            raise ValueError("test failed")
        return document
    raise ValueError(name)


def strategic_merge_patch(schema: Struct, target: Any, patch: Any) -> Any:
    """Applies a strategic merge patch, by the list keys of the schema. The result does not contain the directives."""
    return _strategic(schema, target, patch)


def _strategic(kind: SchemaType | None, target: Any, patch: Any) -> Any:
    if isinstance(patch, list):
        return _strategic_list(kind, target, patch)
    if not isinstance(patch, dict):
        return copy_json(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy_json(value) for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {name: value for name, value in result.items() if name in retained}
    for name, value in patch.items():
        _merge_field(kind, result, name, value)
    for name, order in patch.items():
        if name.startswith("$setElementOrder/"):
            field = name.partition("/")[2]
            result[field] = _ordered(_field_type(kind, field), result.get(field), order)
    return result


def _merge_field(kind: SchemaType | None, result: JsonObject, name: str, value: Any) -> None:
    if name.startswith("$deleteFromPrimitiveList/"):
        field = name.partition("/")[2]
        result[field] = [item for item in result.get(field) or [] if item not in value]
    elif name.startswith("$"):
        return
    elif value is None:
        result.pop(name, None)
    else:
        result[name] = _strategic(_field_type(kind, name), result.get(name), value)


def _field_type(kind: SchemaType | None, name: str) -> SchemaType | None:
    if isinstance(kind, Struct):
        return kind.fields.get(name)
    return kind.item if isinstance(kind, MapType) else None


def _strategic_list(kind: SchemaType | None, target: Any, patch: list[Any]) -> list[Any]:
    existing = list(target) if isinstance(target, list) else []
    if isinstance(kind, ListType) and kind.relation == "set":
        return existing + [item for item in patch if item not in existing]
    if not isinstance(kind, ListType) or kind.relation != "map":
        return copy_json(patch)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy_json(item) for item in patch if item.get("$patch") != "replace"]
    key = kind.keys[0]
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise api_errors.bad_request(f"map: {item} does not contain declared merge key: {key}")
        position = next((i for i, old in enumerate(existing) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            existing = [old for old in existing if old.get(key) != item[key]]
        elif position is None:
            existing.append(_strategic(kind.item, None, item))
        else:
            existing[position] = _strategic(kind.item, existing[position], item)
    return existing


def _ordered(kind: SchemaType | None, items: Any, order: list[Any]) -> list[Any]:
    """Returns the items in the given order; items that it does not name follow, in their own order."""
    items = items if isinstance(items, list) else []
    key = kind.keys[0] if isinstance(kind, ListType) and kind.relation == "map" else None
    wanted = [entry.get(key) if key is not None else entry for entry in order]

    def rank(item: Any) -> int:
        value = item.get(key) if key is not None else item
        return wanted.index(value) if value in wanted else len(wanted)

    return sorted(items, key=rank)
