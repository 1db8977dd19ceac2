"""A YAML document as a tree of nodes with their places.

Scalars keep their text as written together with the kind that Kubernetes' own reader gives it, because `0.50` as a
quantity and `0777` as a mode lose something when they become Python numbers. Aliased parts are shared, not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pilothouse_manifests.translator.problems import InputPosition

ScalarKind = Literal["string", "integer", "float", "boolean", "null"]


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value; `text` is as written, without quotes."""

    place: InputPosition
    text: str
    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    place: InputPosition
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MappingEntry:
    """One key of a mapping with its value; `place` is the key's."""

    place: InputPosition
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order written; no key occurs twice."""

    place: InputPosition
    entries: dict[str, MappingEntry]


Node = ScalarNode | SequenceNode | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file; `root` is never null."""

    place: InputPosition
    root: Node


def describe(node: Node) -> str:
    """The node in words, for a message about a wrong value."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.kind == "null":
        return "nothing"
    article = "an" if node.kind == "integer" else "a"
    return f"the {node.kind} {node.text!r}" if len(node.text) <= 40 else f"{article} {node.kind}"


def says_nothing(node: Node) -> bool:
    """Returns whether the node is null, or holds nothing else, as serialisers write fields that are not set.

    It is iterative, and visits each shared part one time, so that neither depth nor aliases cost more than the text
    did.
    """
    pending: list[Node] = [node]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ScalarNode):
            if current.kind != "null":
                return False
        elif isinstance(current, SequenceNode):
            pending.extend(current.items)
        else:
            pending.extend(entry.value for entry in current.entries.values())
    return True


def integer_value(text: str) -> int:
    """The value of a scalar of kind `integer`: decimal, `0x`, `0o`, `0b`, or octal by a leading zero."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").replace("_", "").lower()
    if digits.startswith(("0x", "0o", "0b")):
        return sign * int(digits, 0)
    if digits.startswith("0") and digits != "0":
        return sign * int(digits, 8)
    return sign * int(digits)
