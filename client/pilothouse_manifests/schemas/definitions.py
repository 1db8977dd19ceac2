"""Compact definitions of objects: names, types, required fields and enums.

A type is a word (`string`, `integer`, `number`, `boolean`, `any`, or two with `|`), the name of a definition after
`#`, or a list: `["array", type]`, `["map", type]`, `["enum", word, …]`. The definition of an object is
`{"fields": {name: type}}`, with `required` and `kind` if it has them; any other definition is a type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Any
Type = str | list[Any]
_INDEX = re.compile(r"\[[^\]]*\]")
_LIKENESS = 0.8
_MOST_FIELDS = 100
_MOST_REFERENCES = 10
# The nearest name is not searched for in objects with more fields: it would take too long.
_MOST_NAMES = 1000
_TYPES = {"string": "a text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}


class Schemas:
    """The definitions of one version of Kubernetes, or of one group of a cluster."""

    def __init__(self, definitions: Mapping[str, Json]) -> None:
        self._definitions = definitions
        self._kinds = {
            each["kind"]: f"#{name}"
            for name, each in definitions.items()
            if isinstance(each, dict) and "kind" in each
        }

    def meant(self, api_version: str, kind: str, path: str) -> str | None:
        """Returns the field name that the misspelt last name of a path is nearest to.

        None if the last name is a field of the object, or resembles none: it may be new in Kubernetes. The path has
        list items in brackets: `spec.template.spec.containers[0].image`.
        """
        fields, name = self._around(api_version, kind, path)
        if fields is None or name in fields or len(fields) > _MOST_NAMES:
            return None
        near = difflib.get_close_matches(name, fields, n=1, cutoff=_LIKENESS)
        return near[0] if near else None

    def misspelt(self, api_version: str, kind: str, path: str, value: Json) -> Iterator[tuple[str, str]]:
        """Yields the path of each misspelt field of a value at a path, with the name that it is nearest to.

        Only the first fields are compared, because finding the nearest name takes up to 0.3 ms.
        """
        for at in self._unknown(api_version, kind, path, value):
            if (meant := self.meant(api_version, kind, at)) is not None:
                yield at, meant

    def _unknown(self, api_version: str, kind: str, path: str, value: Json) -> Iterator[str]:
        """Yields the path of the first unknown field above or at a path; if there is none, of each one below it."""
        steps = list(_split(path))
        for length in range(1, len(steps)):
            above = ".".join(steps[:length])
            if self._lacks(api_version, kind, above):
                yield above
                return
        left: list[tuple[str, Json]] = [(path, value)]
        for _ in range(_MOST_FIELDS):
            if not left:
                return
            at, found = left.pop(0)
            if self._lacks(api_version, kind, at):
                yield at
            elif isinstance(found, dict):
                left += [(f"{at}.{key}", item) for key, item in found.items() if "." not in key]
            elif isinstance(found, list):
                left += [
                    (f"{at}[{number}]", item) for number, item in enumerate(found) if isinstance(item, dict)
                ]

    def problems(
        self, api_version: str, kind: str, path: str, value: Json, *, complete: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Yields the path and the rule of each fault in a value at a path.

        Faults are misspelt names, wrong types, missing fields, and words that an enum does not have. The text of a rule
        never contains the value. `complete`: the definitions are those of the cluster's exact version, so any name that
        they lack is a fault.
        """
        for wrong in self._unknown(api_version, kind, path, value):
            meant = self.meant(api_version, kind, wrong)
            if meant is None and complete:
                meant = self._elsewhere(api_version, kind, _names(wrong)[-1])
            if meant:
                yield wrong, f'is no field of Kubernetes; did you mean "{meant}"?'
            elif complete:
                yield wrong, "is no field of Kubernetes in the version of the cluster"
        found = self._type_at(api_version, kind, path)
        if found is not None:
            yield from self._wrong(path, found, value)

    def has(self, api_version: str, kind: str, path: str) -> bool:
        """Returns whether an object has a field at a path."""
        found: Type | None = self._kinds.get(f"{api_version} {kind}")
        for step in _names(path):
            found = None if found is None else self._within(found, step)
        return found is not None

    def _around(self, api_version: str, kind: str, path: str) -> tuple[Mapping[str, Type] | None, str]:
        """Returns the fields of the object that a path ends in, None if it allows any name, and the last name."""
        *way, name = _names(path)
        found: Type | None = self._kinds.get(f"{api_version} {kind}")
        for step in way:
            found = None if found is None else self._within(found, step)
        return (None if found is None else self._fields(found)), name

    def _lacks(self, api_version: str, kind: str, path: str) -> bool:
        fields, name = self._around(api_version, kind, path)
        return fields is not None and name not in fields

    def _elsewhere(self, api_version: str, kind: str, name: str) -> str:
        """Returns the path of the field of this name that is nearest to the root of an object; empty if there is none.

        Items of lists are written `[]`.
        """
        seen: set[str] = set()
        left: list[tuple[str, Type]] = [("", self._kinds.get(f"{api_version} {kind}", ""))]
        while left:
            at, holder = left.pop(0)
            fields = self._fields(holder)
            if fields is None or str(holder) in seen:
                continue
            seen.add(str(holder))
            if name in fields:
                return f"{at}{name}"
            for key, each in fields.items():
                is_list = isinstance(each, list) and each[0] == "array"
                left.append((f"{at}{key}{'[]' if is_list else ''}.", self._item(each)))
        return ""

    def _type_at(self, api_version: str, kind: str, path: str) -> Type | None:
        *way, last = _split(path)
        holder: Type | None = self._kinds.get(f"{api_version} {kind}")
        for step in way:
            holder = None if holder is None else self._within(holder, _INDEX.sub("", step))
        fields = None if holder is None else self._fields(holder)
        name = _INDEX.sub("", last)
        if fields is None or name not in fields:
            return None
        return fields[name] if name == last else self._item(fields[name])

    def _wrong(self, at: str, wanted: Type, value: Json) -> Iterator[tuple[str, str]]:
        """Yields the faults of a value that should have a type; unknown fields and null have none."""
        if value is None:
            return
        if isinstance(wanted, list):
            yield from self._wrong_of(at, wanted, value)
        elif wanted.startswith("#"):
            definition = self._resolved(wanted)
            if isinstance(definition, dict) and "fields" in definition:
                yield from self._wrong_object(at, definition, value)
            elif isinstance(definition, str | list):
                yield from self._wrong(at, definition, value)
        elif wanted != "any" and not any(_is_of(value, word) for word in wanted.split("|")):
            words = " or ".join(_TYPES[word] for word in wanted.split("|"))
            yield at, f"must be {words}, not {_type_of(value)}"

    def _resolved(self, reference: str) -> Json:
        """Returns the definition that a reference leads to.

        None after too many references, which may be a cycle."""
        for _ in range(_MOST_REFERENCES):
            found = self._definitions.get(reference[1:])
            if not isinstance(found, str) or not found.startswith("#"):
                return found
            reference = found
        return None

    def _wrong_of(self, at: str, wanted: list[Any], value: Json) -> Iterator[tuple[str, str]]:
        """Yields the faults of a value that should be a list, a mapping or a word of an enum."""
        kind, *rest = wanted
        if kind == "enum":
            if value not in rest:
                yield at, f"must be one of {', '.join(rest)}"
        elif kind == "array" and isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._wrong(f"{at}[{number}]", rest[0], item)
        elif kind == "map" and isinstance(value, dict):
            for key, item in value.items():
                yield from self._wrong(f"{at}[{key}]", rest[0], item)
        else:
            yield at, f"must be {'a list' if kind == 'array' else 'an object'}, not {_type_of(value)}"

    def _wrong_object(self, at: str, definition: Mapping[str, Any], value: Json) -> Iterator[tuple[str, str]]:
        if not isinstance(value, dict):
            yield at, f"must be an object, not {_type_of(value)}"
            return
        for name in definition.get("required", ()):
            if value.get(name) is None:
                yield at, f'must have the field "{name}"'
        for name, item in value.items():
            if name in definition["fields"]:
                yield from self._wrong(f"{at}.{name}", definition["fields"][name], item)

    def _within(self, holder: Type, name: str) -> Type | None:
        if isinstance(holder, list) and holder[0] == "map":
            return self._item(holder[1])
        fields = self._fields(holder)
        return None if fields is None or name not in fields else self._item(fields[name])

    def _item(self, found: Type) -> Type:
        """Returns the type of the items if the type is a list's, else the type itself."""
        return found[1] if isinstance(found, list) and found[0] == "array" else found

    def _fields(self, holder: Type) -> Mapping[str, Type] | None:
        """Returns the fields of an object; None if it allows any name."""
        if not isinstance(holder, str) or not holder.startswith("#"):
            return None
        definition = self._definitions.get(holder[1:])
        return definition["fields"] if isinstance(definition, dict) and "fields" in definition else None


def _is_of(value: Json, word: str) -> bool:
    if isinstance(value, bool):
        return word == "boolean"
    if word == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, {"string": str, "number": int | float}.get(word, ()))


def _type_of(value: Json) -> str:
    """Returns the type of a value in words; messages never contain the value, which may be a secret."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return next((words for word, words in _TYPES.items() if _is_of(value, word)), "another value")


def _names(path: str) -> Sequence[str]:
    return [_INDEX.sub("", step) for step in _split(path)]


def _split(path: str) -> Iterator[str]:
    """Yields the steps of a path. A dot within brackets belongs to its step."""
    step, depth = "", 0
    for letter in path:
        depth += (letter == "[") - (letter == "]")
        if letter == "." and not depth:
            yield step
            step = ""
        else:
            step += letter
    yield step
