"""Reads manifests from files, folders and standard input, with the file and line of every part.

PyYAML's composer gives the positions. Its resolver is replaced, because the type of a plain scalar must be decided as
Kubernetes decides it and not as YAML 1.1 does: `12:30` is text and not a number to the base of sixty, `2024-01-01` is
text, while `yes` and `on` are booleans in both. A key that occurs twice is refused: YAML forbids it, and the first
value would be dropped silently. Anchors, aliases and merge keys work. An alias that contains itself is refused, and so
are aliases that would make a document far longer than its text. A file that cannot be read gives one problem; the
other files are still read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import yaml

from pilothouse_manifests.translator.nodes import (
    Document,
    InputPosition,
    Mapping,
    MappingEntry,
    Node,
    ScalarKind,
    ScalarNode,
    SequenceNode,
)
from pilothouse_manifests.translator.problems import InputProblem, Problems

STANDARD_INPUT = "-"
_SUFFIXES = (".yaml", ".yml", ".json")
_TAG = "tag:yaml.org,2002:"
_KINDS: dict[str, ScalarKind] = {
    _TAG + "str": "string",
    _TAG + "int": "integer",
    _TAG + "float": "float",
    _TAG + "bool": "boolean",
    _TAG + "null": "null",
}
# The greatest length of a document with its aliases expanded, in characters: nothing longer fits into etcd.
_EXPANDED_CHARACTERS = 2**20
_NESTED_TOO_DEEPLY = "expected a document, found one that is nested too deeply to be read"

# PyYAML's messages that do not name what was expected -> messages that do.
_EXPECTED = {
    "mapping values are not allowed here": "expected the end of the value, found ':'; "
    "put a nested mapping on lines of its own, indented further, and quote a text that contains ': '",
    "could not find expected ':'": "expected ':' after the key",
    "sequence entries are not allowed here": "expected a value, found '- '; put a list on lines of its own",
    "mapping keys are not allowed here": "expected a value, found '? '",
    "found character '\\t' that cannot start any token": "expected spaces, found a tab; YAML indents by spaces only",
    "found unexpected end of stream": "expected the closing quote, found the end of the file",
    "found unexpected document separator": "expected the closing quote, found the end of the document",
}
_TOKENS = {
    "expected <block end>, but found '<block sequence start>'": "expected a key, "
    "or less indentation to end the {what}, found a list",
    "expected <block end>, but found '<block mapping start>'": "expected a key with the indentation of the {what}, "
    "found a deeper one",
    "expected <block end>, but found '-'": "expected a key, or less indentation to end the {what}, found '- '",
    "expected <block end>, but found '<scalar>'": "expected the end of the {what}, found more text; quote a text that "
    "itself contains quotes",
    "expected <block end>, but found '?'": "expected an item that begins with '- ', "
    "or less indentation to end the {what}, found a key",
}
# PyYAML's names of tokens -> what a person sees in the file.
_WORDS = {
    "'<stream end>'": "the end of the file",
    "'<document start>'": "'---'",
    "'<document end>'": "'...'",
    "'<block mapping start>'": "a key",
    "'<block sequence start>'": "a list",
    "'<block end>'": "less indentation",
    "'<scalar>'": "a value",
    "the node content": "a value",
    "flow node": "value",
    "block node": "value",
    "flow sequence": "list",
    "flow mapping": "mapping",
    "block mapping": "mapping",
    "block collection": "list",
}


class _Resolver(yaml.resolver.BaseResolver):
    """Decides the kind of a plain scalar as Kubernetes' YAML parser does."""


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "tTfFyYnNoO"),
    ("int", r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Resolver.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first))


class _Loader(
    yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _Resolver
):
    """Composes nodes only: it constructs nothing, so that no tag can create a Python object."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        _Resolver.__init__(self)

    def scan_to_next_token(self) -> None:
        """Skips tabs between tokens too, as libyaml does.

        A tab where a key may begin is indentation and is refused."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str]:
        """Reads the spaces and tabs after a word of a plain scalar."""
        length = 0
        while self.peek(length) in (" ", "\t"):
            length += 1
        blanks = self.prefix(length)
        self.forward(length)
        # PyYAML reads the text after a line break.
        return super().scan_plain_spaces(indent, start_mark) or ([blanks] if blanks else [])


def load(
    sources: Iterable[str], problems: Problems, standard_input: IO[bytes] | None = None
) -> list[Document]:
    """Returns every document of the sources, in order.

    A source is a file, a folder (its `*.yaml`, `*.yml` and `*.json` files by name, not those of its folders) or `-`.
    A source that cannot be read becomes a problem; empty documents are skipped.
    """
    documents: list[Document] = []
    for source in sources:
        for name, content in _read(source, problems, standard_input):
            text = _decode(name, content, problems)
            if text is not None:
                documents.extend(parse(text, name, problems))
    return documents


def parse(text: str, file: str, problems: Problems) -> list[Document]:
    """Returns the documents of one text; a malformed text gives a problem and no document.

    `file` is the text's name in messages."""
    try:
        return list(_documents(text, file))
    except _RefusedError as error:
        problems.add(InputProblem(error.place, "", "", error.message))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = InputPosition(file, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        problems.add(
            InputProblem(
                place,
                "",
                "",
                f"expected text, found a character that YAML forbids: U+{ord(text[error.position]):04X}",
            )
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark, file) if mark else InputPosition(file, 1, 1)
        problems.add(InputProblem(place, "", "", _expectation(error)))
    except RecursionError:
        problems.add(InputProblem(InputPosition(file, 1, 1), "", "", _NESTED_TOO_DEEPLY))
    return []


def _read(source: str, problems: Problems, standard_input: IO[bytes] | None) -> Iterator[tuple[str, bytes]]:
    if source == STANDARD_INPUT:
        yield "stdin", (standard_input or sys.stdin.buffer).read()
        return
    path = Path(source)
    try:
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
            if not files:
                message = f"expected files named *{', *'.join(_SUFFIXES)}, found none of them"
                problems.add(InputProblem(InputPosition(source, 0, 0), "", "", message))
        else:
            files = [path]
        for file in files:
            yield str(file), file.read_bytes()
    except OSError as error:
        message = f"expected a file or folder that can be read: {error.strerror or error}"
        problems.add(InputProblem(InputPosition(error.filename or source, 0, 0), "", "", message))


def _decode(file: str, content: bytes, problems: Problems) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = InputPosition(file, before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        message = f"expected text in UTF-8, found the byte 0x{content[error.start]:02x}"
        problems.add(InputProblem(place, "", "", message))
        return None


class _RefusedError(Exception):
    """Well-formed YAML that is refused."""

    def __init__(self, place: InputPosition, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


def _documents(text: str, file: str) -> Iterator[Document]:
    loader = _Loader(text)
    while loader.check_node():
        composed = loader.get_node()
        if composed is None:
            continue
        root = _Converter(file, _EXPANDED_CHARACTERS + 2 * len(text)).convert(composed)
        if not (isinstance(root, ScalarNode) and root.kind == "null"):
            yield Document(root.place, root)


class _Converter:
    """Turns PyYAML's nodes into those of the translator; each shared node once.

    Later steps expand aliases, and a kilobyte can expand to gigabytes. So the length of each node is counted with its
    aliases expanded, and a node of more than `most` characters is refused.
    """

    def __init__(self, file: str, most: int) -> None:
        self._file = file
        self._most = most
        self._done: dict[int, Node] = {}
        self._lengths: dict[int, int] = {}
        self._merged_characters = 0
        self._open: set[int] = set()

    def convert(self, node: yaml.Node) -> Node:
        known = self._done.get(id(node))
        if known is not None:
            return known
        place = _place(node.start_mark, self._file)
        if id(node) in self._open:
            raise _RefusedError(place, "expected a tree, found an alias to a part that contains it")
        self._open.add(id(node))
        converted = self._convert(node, place)
        self._open.discard(id(node))
        self._done[id(node)] = converted
        self._lengths[id(converted)] = self._bounded(self._length(converted), place)
        return converted

    def _length(self, node: Node) -> int:
        """Returns the number of characters of a node whose parts are already converted."""
        if isinstance(node, ScalarNode):
            return 1 + len(node.text)
        if isinstance(node, SequenceNode):
            return 1 + sum(self._lengths[id(item)] for item in node.items)
        return 1 + sum(len(key) + self._lengths[id(entry.value)] for key, entry in node.entries.items())

    def _bounded(self, length: int, place: InputPosition) -> int:
        if length > self._most:
            raise _RefusedError(
                place,
                f"expected at most {_EXPANDED_CHARACTERS} characters with all aliases expanded, found more; use fewer "
                "aliases, or several files",
            )
        return length

    def _convert(self, node: yaml.Node, place: InputPosition) -> Node:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Mapping(place, self._entries(node))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return SequenceNode(place, tuple(self.convert(item) for item in node.value))
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "merge":
            return ScalarNode(place, node.value, "string")
        if isinstance(node, yaml.ScalarNode) and node.tag in _KINDS:
            kind = _KINDS[node.tag]
            return ScalarNode(place, node.value, kind)
        raise _RefusedError(place, f"expected plain YAML, found the tag {node.tag.replace(_TAG, '!!')}")

    def _entries(self, node: yaml.MappingNode) -> dict[str, MappingEntry]:
        entries: dict[str, MappingEntry] = {}
        merged: list[Mapping] = []
        for key, value in node.value:
            place = _place(key.start_mark, self._file)
            if key.tag == _TAG + "merge":
                merged.extend(self._merged(value, place))
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                found = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise _RefusedError(place, f"expected a text as key, found {found}; put it in quotes")
            if key.value in entries:
                first = entries[key.value].place
                raise _RefusedError(
                    place, f"expected each key once, found {key.value!r} again; first in line {first.line}"
                )
            entries[key.value] = MappingEntry(place, self.convert(value))
        for mapping in merged:
            self._merged_characters += self._lengths[id(mapping)]
            self._bounded(self._merged_characters, mapping.place)
            for name, entry in mapping.entries.items():
                entries.setdefault(name, entry)
        return entries

    def _merged(self, value: yaml.Node, place: InputPosition) -> list[Mapping]:
        converted = self.convert(value)
        parts = converted.items if isinstance(converted, SequenceNode) else (converted,)
        if not all(isinstance(part, Mapping) for part in parts):
            raise _RefusedError(place, "expected a mapping, or a list of them, after '<<'")
        return [part for part in parts if isinstance(part, Mapping)]


def _place(mark: yaml.Mark, file: str) -> InputPosition:
    return InputPosition(file, mark.line + 1, mark.column + 1)


def _expectation(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "expected YAML"
    context = error.context or ""
    if context.startswith("found duplicate anchor") and error.context_mark is not None:
        return f"expected each anchor once, found it again; first in line {error.context_mark.line + 1}"
    what = (
        context.removeprefix("while parsing a ")
        .removeprefix("while scanning a ")
        .removeprefix("while parsing an ")
    )
    if error.context_mark is not None:
        what += f" of line {error.context_mark.line + 1}"
    if problem in _TOKENS:
        return _TOKENS[problem].format(what=what)
    said = _EXPECTED.get(problem, problem)
    for token, words in _WORDS.items():
        said, what = said.replace(token, words), what.replace(token, words)
    if context.startswith("while") and error.context_mark is not None and problem not in _EXPECTED:
        said += f", in the {what}"
    return said if "expected" in said else f"expected YAML: {said}"
