"""Converts documents of carried objects from the caller's JSON text to the stored form and back; pure functions.

The stored form is the whole object: `apiVersion`, `kind`, `metadata` with name, labels and annotations, then the fields
of its kind as the caller wrote them. Numbers keep their exact values: a whole number that fits into 64 bits stays
whole. The namespace is left out, because the platform decides it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import orjson

from pilothouse_server.errors import InvalidArgument, Violation, invalid
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.values import names

MOST_BYTES: Final = 256 * 1024
MOST_DEPTH: Final = 64
FIELD: Final = "object.document"
_METADATA: Final = frozenset({"name", "namespace", "labels", "annotations"})
_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)


def completed(given: CarriedObject, namespaces: tuple[str, ...]) -> CarriedObject:
    """Returns the object with its document in stored form, and with the names, labels and annotations from it.

    `namespaces`: the names that the document may give as its namespace.

    Raises:
        InvalidArgument: the document is not an object, is too large, or contradicts `given`.
    """
    document = parsed(given.document)
    metadata = _metadata(document, namespaces)
    named = {
        "api_version": _agreed(given.api_version, document.get("apiVersion"), "api_version", "apiVersion"),
        "kind": _agreed(given.kind, document.get("kind"), "kind", "kind"),
        "name": _agreed(given.name, metadata.get("name"), "name", "metadata.name"),
    }
    _check_names(named)
    labels = _agreed_map(given.labels, metadata.get("labels"), "labels", names.label_value_problem)
    annotations = _agreed_map(given.annotations, metadata.get("annotations"), "annotations", None)
    placed = msgspec.structs.replace(given, **named, labels=labels, annotations=annotations)
    return msgspec.structs.replace(placed, document=_written(placed, document))


def merged(stored: CarriedObject, wanted: CarriedObject, namespaces: tuple[str, ...]) -> CarriedObject:
    """Returns `wanted`, which is `stored` with a caller's new fields, with its document in stored form.

    If a new document has `metadata`, it also replaces labels and annotations that the caller did not set separately.
    """
    if wanted.document == stored.document:
        return msgspec.structs.replace(wanted, document=_written(wanted, parsed(wanted.document)))
    document = parsed(wanted.document)
    metadata = document.get("metadata")
    version = document.get("apiVersion") or stored.api_version
    given = msgspec.structs.replace(wanted, api_version=version)
    if isinstance(metadata, dict):
        # Labels and annotations that the caller did not set separately come from the document.
        same = {key for key in ("labels", "annotations") if getattr(wanted, key) == getattr(stored, key)}
        given = msgspec.structs.replace(given, **{key: {} for key in same})
    complete = completed(given, namespaces)
    if complete.api_group != stored.api_group:
        raise invalid(f"{FIELD}.apiVersion", f"must have the same group as {stored.api_version}")
    return complete


def manifest(carried: CarriedObject) -> Manifest:
    """Returns the document of a stored object as a value."""
    found: Manifest = orjson.loads(carried.document)
    return found


def parsed(text: str) -> Manifest:
    """Returns the object of a JSON text. Raises InvalidArgument."""
    if not text:
        raise invalid(FIELD, "must be given", reason="REQUIRED")
    if len(text.encode()) > MOST_BYTES:
        raise invalid(FIELD, f"must have at most {MOST_BYTES // 1024} KiB")
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refused_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        words = error.words if isinstance(error, _Refused) else "must be JSON"
        raise invalid(FIELD, words) from None
    if not isinstance(document, dict):
        raise invalid(FIELD, "must be a JSON object")
    _check_values(document)
    return document


def differences(before: Manifest, after: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Yields each path that differs, with both values; None stands for a missing value."""
    yield from _differences(before, after, "")


def path_of(steps: Iterable[str | int]) -> str:
    """Returns a path as text, in the form that `differences` yields."""
    text = ""
    for step in steps:
        text = _joined(text, step)
    return text


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int) or "." in step or "/" in step:
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


class _Refused(ValueError):
    """A rule that the text breaks; `words` states the rule."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def _object(pairs: list[tuple[str, Any]]) -> Manifest:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("must name each key of an object once")
    return found


def _refused_number(_: str) -> float:
    raise _Refused("must not contain NaN or Infinity")


def _check_values(document: Manifest) -> None:
    pending: list[tuple[Any, int]] = [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > MOST_DEPTH:
            raise _too_deep()
        if isinstance(value, dict):
            for key in value:
                _check_text(key)
            pending += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, str):
            _check_text(value)
        elif _is_beyond(value):
            raise invalid(FIELD, "must not contain a number beyond 64 bits")


def _is_beyond(value: Any) -> bool:
    if isinstance(value, int):
        return not _SMALLEST <= value <= _LARGEST
    return isinstance(value, float) and not math.isfinite(value)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(FIELD, "must not contain halves of surrogate pairs") from None
    if "\0" in text:
        raise invalid(FIELD, "must not contain the character NUL")


def _too_deep() -> InvalidArgument:
    return invalid(FIELD, f"must be at most {MOST_DEPTH} levels deep")


def _metadata(document: Manifest, namespaces: tuple[str, ...]) -> Manifest:
    if document.get("status") not in (None, {}):
        raise invalid(f"{FIELD}.status", "is set by the cluster: leave it out")
    found = document.get("metadata")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(f"{FIELD}.metadata", "must be an object")
    metadata = {key: value for key, value in found.items() if value is not None}
    if unknown := sorted(metadata.keys() - _METADATA):
        field = f"{FIELD}.metadata.{unknown[0]}"
        raise invalid(field, "may not be given: only name, namespace, labels and annotations may")
    if metadata.get("namespace", namespaces[0]) not in namespaces:
        raise invalid(f"{FIELD}.metadata.namespace", "must be the namespace of the request, or left out")
    return metadata


def _agreed(given: str, there: Any, field: str, path: str) -> str:
    if there is None:
        return given
    if not isinstance(there, str):
        raise invalid(f"{FIELD}.{path}", "must be text")
    if given and given != there:
        raise invalid(f"object.{field}", f"must be equal to {path} in the document")
    return there


def _check_names(named: dict[str, str]) -> None:
    rules = {
        "api_version": names.api_version_problem,
        "kind": names.kind_problem,
        "name": names.path_segment_problem,
    }
    for field, problem in rules.items():
        if not named[field]:
            raise invalid(f"object.{field}", "must be given, here or in the document", reason="REQUIRED")
        if found := problem(named[field]):
            raise invalid(f"object.{field}", found)


def _agreed_map(given: dict[str, str], there: Any, field: str, rule: Any) -> dict[str, str]:
    if there is None:
        return given
    path = f"{FIELD}.metadata.{field}"
    if not isinstance(there, dict) or not all(isinstance(value, str) for value in there.values()):
        raise invalid(path, "must be an object with text values")
    key_problem = names.label_key_problem if field == "labels" else names.annotation_key_problem
    for key, value in there.items():
        if problem := key_problem(key) or (rule and rule(value)):
            raise invalid(f"{path}[{key[:300]}]", problem)
    if problem := names.annotations_size_problem(there):
        raise invalid(path, problem)
    if given and given != there:
        raise InvalidArgument(
            f"object.{field}: must be equal to {path.removeprefix('object.')}; give one of them",
            reason="INVALID_FIELD",
            metadata={"field": f"object.{field}"},
            violations=[Violation(f"object.{field}", "equal", "must be equal to those in the document")],
        )
    return dict(there)


def _written(carried: CarriedObject, document: Manifest) -> str:
    """Returns the document in its stored form, with these names, labels and annotations."""
    metadata: Manifest = {"name": carried.name}
    if carried.labels:
        metadata["labels"] = carried.labels
    if carried.annotations:
        metadata["annotations"] = carried.annotations
    said = {"apiVersion": carried.api_version, "kind": carried.kind, "metadata": metadata}
    rest = {key: value for key, value in document.items() if key not in (*said, "status")}
    text = json.dumps({**said, **rest}, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MOST_BYTES:
        raise invalid(FIELD, f"must have at most {MOST_BYTES // 1024} KiB with its labels and annotations")
    return text


def _differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(before.get(key), after.get(key), _joined(path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, _joined(path, number))
    else:
        yield path, before, after
