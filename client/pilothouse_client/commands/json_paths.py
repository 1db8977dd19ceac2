"""Paths into data, as kubectl writes them: `-o jsonpath=…` and `-o custom-columns=…`.

    {.name}{"\\n"}                                one field, and text in quotes
    {.env[0].name} {.env[-1].name} {.ports[*].container_port}
    {.labels['app.kubernetes.io/name']}           a key that has dots; {.labels.app\\.kubernetes\\.io/name} is the same
    {..image}                                     every field of this name, at any depth
    {.conditions[?(@.type=="Stable")].status}     items that a comparison chooses
    {range .items[*]}{.name}{"\\n"}{end}          a piece for each item

A list is `{"items": […]}`. A path without a value gives nothing. The command has its own parser because the libraries
on PyPI read another language (RFC 9535), without text, ranges and kubectl's spelling of keys.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pilothouse_client.commands.failures import CommandError

_WRONG_COMMAND_LINE = 2
# Returns the values that a step finds in data.
_Step = Callable[[Any], Iterable[Any]]
# Returns the text of a piece of a template for data.
_Piece = Callable[[Any], str]
_NAME = re.compile(r"(?:\\.|[^.\[\]{}()\s\\'\"])+")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_INSIDE = re.compile(r"\[(\?\((?:[^'\"()]|'[^']*'|\"[^\"]*\")*\)|(?:[^\]'\"]|'[^']*'|\"[^\"]*\")*)\]")
_FILTER = re.compile(
    r"@(?P<path>[^\s=!<>]*)\s*(?:(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>'[^']*'|\"[^\"]*\"|[^\s]+))?\s*"
)
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d+))?")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def _wrong(text: str, why: str) -> CommandError:
    return CommandError(
        f"--output: {text!r} {why}; write a path such as .name or .env[0].value", _WRONG_COMMAND_LINE
    )


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)


def _literal(text: str) -> str | None:
    """Returns the text between quotes; None if it is not quoted."""
    found = _QUOTED.fullmatch(text)
    return None if found is None else _unescaped(found[1] if found[1] is not None else found[2])


class JsonPath:
    """A path into data."""

    def __init__(self, text: str) -> None:
        self._steps = _steps(text)

    def values(self, data: Any) -> list[Any]:
        """Returns the values at the path, in the order of the data.

        Empty if there are none."""
        found = [data]
        for step in self._steps:
            found = [value for each in found for value in step(each)]
        return found


def _steps(text: str) -> list[_Step]:
    steps: list[_Step] = []
    rest = text.strip().removeprefix("$").removeprefix("@")
    while rest:
        if rest[0] == "[":
            inside = _INSIDE.match(rest)
            if inside is None:
                raise _wrong(text, "has a bracket that is not closed")
            steps.append(_bracket(inside[1].strip(), text))
            rest = rest[inside.end() :]
            continue
        deep = rest.startswith("..")
        name = _NAME.match(rest[2:] if deep else rest.removeprefix("."))
        if name is None and rest == ".":
            break
        if name is None:
            raise _wrong(text, "is not a path")
        steps.append(_deep(_unescaped(name[0])) if deep else _field(_unescaped(name[0])))
        rest = rest[name.end() + (2 if deep else rest.startswith(".")) :]
    return steps


def _field(name: str) -> _Step:
    if name == "*":
        return _all
    return lambda data: [data[name]] if isinstance(data, dict) and name in data else []


def _all(data: Any) -> Iterable[Any]:
    if isinstance(data, dict):
        return data.values()
    return data if isinstance(data, list) else []


def _deep(name: str) -> _Step:
    def find(data: Any) -> Iterable[Any]:
        if isinstance(data, dict) and name in data:
            yield data[name]
        for each in _all(data):
            yield from find(each)

    return find


def _bracket(inside: str, text: str) -> _Step:
    if inside.startswith("?("):
        return _filter(inside[2:-1].strip(), text)
    if inside == "*":
        return _all
    if (key := _literal(inside)) is not None:
        return lambda data: [data[key]] if isinstance(data, dict) and key in data else []
    if (found := _SLICE.fullmatch(inside)) is not None and found[3] != "0":
        part = slice(*(int(each) if each else None for each in found.groups()))
        return lambda data: data[part] if isinstance(data, list) else []
    try:
        numbers = [int(each) for each in inside.split(",")]
    except ValueError:
        raise _wrong(text, f"has [{inside}], which is not an index, slice, key or filter") from None
    return lambda data: [
        data[each] for each in numbers if isinstance(data, list) and -len(data) <= each < len(data)
    ]


def _filter(condition: str, text: str) -> _Step:
    found = _FILTER.fullmatch(condition)
    if found is None:
        raise _wrong(text, f"has the filter ({condition}), which is not a comparison such as @.name=='web'")
    path, sign = JsonPath(found["path"]), found["sign"]
    if sign is None:
        return lambda data: [each for each in _all(data) if path.values(each)]
    wanted, compare = _value(found["value"]), _COMPARISONS[sign]

    def chosen(item: Any) -> bool:
        try:
            return any(compare(value, wanted) for value in path.values(item))
        except TypeError:
            return False

    return lambda data: [each for each in _all(data) if chosen(each)]


def _value(text: str) -> Any:
    quoted = _literal(text)
    if quoted is not None:
        return quoted
    try:
        return json.loads(text)
    except ValueError:
        return text


def written(value: Any) -> str:
    """Returns a value as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class JsonTemplate:
    """Text with paths between braces. A text without braces is one path."""

    def __init__(self, text: str) -> None:
        parts = _parts(text if "{" in text else f"{{{text}}}")
        self._pieces, rest = _pieces(parts, text, inside=False)
        assert not rest

    def text(self, data: Any) -> str:
        """Returns the text for some data."""
        return "".join(piece(data) for piece in self._pieces)


def _parts(text: str) -> list[tuple[bool, str]]:
    """Returns the parts of a template: whether each is in braces, and its text."""
    parts, position = [], 0
    for found in re.finditer(r"\{((?:[^{}'\"]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")*)\}", text):
        if position < found.start():
            parts.append((False, text[position : found.start()]))
        parts.append((True, found[1].strip()))
        position = found.end()
    if position < len(text):
        parts.append((False, text[position:]))
    for between, part in parts:
        if not between and ("{" in part or "}" in part):
            raise _wrong(text, "has an unmatched brace or quote")
    return parts


def _pieces(
    parts: Sequence[tuple[bool, str]], text: str, *, inside: bool
) -> tuple[list[_Piece], Sequence[tuple[bool, str]]]:
    pieces: list[_Piece] = []
    while parts:
        (between, part), parts = parts[0], parts[1:]
        if between and part == "end":
            if not inside:
                raise _wrong(text, "has {end} without {range …}")
            return pieces, parts
        if between and part.startswith("range"):
            within, parts = _pieces(parts, text, inside=True)
            pieces.append(_range(JsonPath(part.removeprefix("range")), within))
        else:
            pieces.append(_piece(part, between=between))
    if inside:
        raise _wrong(text, "has {range …} without {end}")
    return pieces, parts


def _range(path: JsonPath, pieces: Sequence[_Piece]) -> _Piece:
    return lambda data: "".join(piece(each) for each in path.values(data) for piece in pieces)


def _piece(part: str, *, between: bool) -> _Piece:
    words = _literal(part) if between else part
    if words is not None:
        return lambda _data: words
    path = JsonPath(part)
    return lambda data: " ".join(map(written, path.values(data)))


def custom_columns(text: str) -> list[tuple[str, JsonPath]]:
    """Returns headings and paths of `NAME:.name,IMAGE:.image`."""
    columns = []
    for column in re.split(r",(?=[^,:\[\]]+:)", text):
        heading, colon, path = column.partition(":")
        if not colon or not heading or not path:
            raise CommandError(
                f"--output: custom-columns takes HEADING:PATH, not {column!r}, as in NAME:.name,IMAGE:.image",
                _WRONG_COMMAND_LINE,
            )
        columns.append((heading, JsonPath(path.strip("{}"))))
    return columns
