"""Converts between JSON texts and the nodes that the translator reads.

The lines of a JSON text mean nothing to a person, so each node has the number of its document, and the source that the
caller gave. Messages never contain values of such a document, because a program may log the message but not the
document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pilothouse_manifests.translator.nodes import (
    Document,
    HiddenScalar,
    InputPosition,
    Mapping,
    MappingEntry,
    Node,
    ScalarNode,
    SequenceNode,
    float_value,
    integer_value,
)

MOST_DEPTH = 64
# Kubernetes does not read longer numbers.
_MOST_DIGITS = 40


@dataclass(frozen=True, slots=True, order=True)
class DocumentPosition(InputPosition):
    """The position of a whole document: `file` is its source, `line` its number from 1."""

    def __str__(self) -> str:
        return self.file or f"document {self.line}"


class DocumentError(ValueError):
    """A text that is not a document; `words` has the reason, without any part of the text."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def read_document(text: str, place: InputPosition) -> Document:
    """Returns the document of a JSON text. Raises DocumentError."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refused_constant,
            parse_int=_number,
            parse_float=_number,
        )
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        words = (
            error.words if isinstance(error, DocumentError) else "expected a JSON text, found something else"
        )
        raise DocumentError(words) from None
    return Document(place, _node(value, place, 1))


def written(node: Node) -> str:
    """Returns the JSON text of a node.

    Raises DocumentError for a number that JSON does not have."""
    return "".join(_written(node))


class _Number(str):
    """The text of a number."""

    __slots__ = ()


def _number(text: str) -> _Number:
    if len(text) > _MOST_DIGITS or not math.isfinite(float(text)):
        raise DocumentError("expected numbers of 64 bits, found a longer one")
    return _Number(text)


def _refused_constant(_: str) -> Any:
    raise DocumentError("expected a JSON text, found NaN or Infinity")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DocumentError("expected each key of an object once, found one again")
    return found


def _node(value: Any, place: InputPosition, depth: int) -> Node:
    if depth > MOST_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        entries = {}
        for key, item in value.items():
            _check_text(key)
            entries[key] = MappingEntry(place, _node(item, place, depth + 1))
        return Mapping(place, entries)
    if isinstance(value, list):
        return SequenceNode(place, tuple(_node(item, place, depth + 1) for item in value))
    if isinstance(value, _Number):
        whole = value.lstrip("-").isdigit()
        return HiddenScalar(place, str(value), "integer" if whole else "float")
    if isinstance(value, str):
        _check_text(value)
        return HiddenScalar(place, value, "string")
    if value is None:
        return HiddenScalar(place, "", "null")
    return HiddenScalar(place, "true" if value else "false", "boolean")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DocumentError("expected valid Unicode, found half of a surrogate pair") from None
    if "\0" in text:
        raise DocumentError("expected texts without the character NUL, found one")


def _too_deep() -> DocumentError:
    return DocumentError(f"expected at most {MOST_DEPTH} levels, found more")


def _written(node: Node) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield "{"
        for number, (key, entry) in enumerate(node.entries.items()):
            yield f"{',' if number else ''}{json.dumps(key, ensure_ascii=False)}:"
            yield from _written(entry.value)
        yield "}"
    elif isinstance(node, SequenceNode):
        yield "["
        for number, item in enumerate(node.items):
            yield "," if number else ""
            yield from _written(item)
        yield "]"
    else:
        yield _scalar(node)


def _scalar(node: ScalarNode) -> str:
    match node.kind:
        case "null":
            return "null"
        case "boolean":
            return "true" if node.text.lower() in ("true", "yes", "on") else "false"
        case "integer":
            return str(integer_value(node.text))
        case "float":
            number = float_value(node.text)
            if not math.isfinite(number):
                raise DocumentError("expected a number, found one that JSON does not have")
            return repr(number)
        case _:
            return json.dumps(node.text, ensure_ascii=False)
