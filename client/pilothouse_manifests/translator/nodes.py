"""A YAML document as a tree of nodes with their positions.

Scalars keep their text as written together with the kind that Kubernetes' own reader gives it, because `0.50` as a
quantity and `0777` as a mode lose something when they become Python numbers. Aliased parts are shared, not copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pilothouse_manifests.sources import merge_keys


@dataclass(frozen=True, slots=True, order=True)
class InputPosition:
    """A position in an input file; `line` and `column` count from 1, and are 0 for a file as a whole."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def exact(self) -> str:
        """The position with its column, for a text that cannot be parsed."""
        return f"{self}:{self.column}" if self.line else self.file


_STEPS = re.compile(r"([^.\[\]]+)(?:\[([0-9]+)\])?(?:\.|$)")

ScalarKind = Literal["string", "integer", "float", "boolean", "null"]


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value; `text` is as written, without quotes."""

    place: InputPosition
    text: str
    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class HiddenScalar(ScalarNode):
    """A value that no message may contain."""


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
    """Returns the node in words, for a message about a wrong value."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.kind == "null":
        return "nothing"
    article = "an" if node.kind == "integer" else "a"
    hidden = isinstance(node, HiddenScalar) or len(node.text) > 40
    return f"{article} {node.kind}" if hidden else f"the {node.kind} {node.text!r}"


def says_nothing(node: Node) -> bool:
    """Returns whether the node is null, or contains nothing else, as serialisers write fields that are not set.

    It is iterative, and visits each shared part once, so that neither depth nor aliases make it slower than reading the
    text.
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


def keyed_path(root: Mapping, path: str) -> str:
    """Returns a workload's path with merge keys in place of the positions of items: `containers[name=main].tty`."""
    here: Node | None = root
    steps = []
    for key, index in _STEPS.findall(path):
        entry = here.entries.get(key) if isinstance(here, Mapping) else None
        here = entry.value if entry is not None else None
        if index and isinstance(here, SequenceNode):
            here = here.items[int(index)]
            steps.append(f"{key}[{_merge_keys(here)}]")
        else:
            steps.append(key)
    return ".".join(steps)


def _merge_keys(item: Node) -> str:
    if not isinstance(item, Mapping):
        return ""
    texts = {
        key: entry.value.text for key, entry in item.entries.items() if isinstance(entry.value, ScalarNode)
    }
    return merge_keys(texts)


def plain(node: Node) -> Any:
    """Returns the node as a JSON value."""
    if isinstance(node, Mapping):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    match node.kind:
        case "null":
            return None
        case "boolean":
            return node.text.lower() in ("true", "yes", "on")
        case "integer":
            return integer_value(node.text)
        case "float":
            return float_value(node.text)
        case _:
            return node.text


def float_value(text: str) -> float:
    """Returns the value of a scalar of kind `float`, including `.inf` and `.nan`, which JSON does not have."""
    return float(re.sub(r"\.(?=[in])", "", text.replace("_", "").lower()))


def integer_value(text: str) -> int:
    """Returns the value of a scalar of kind `integer`: decimal, `0x`, `0o`, `0b`, or octal by a leading zero."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").replace("_", "").lower()
    if digits.startswith(("0x", "0o", "0b")):
        return sign * int(digits, 0)
    if digits.startswith("0") and digits != "0":
        return sign * int(digits, 8)
    return sign * int(digits)
