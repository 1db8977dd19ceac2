"""Reading manifests: a fault is reported with file, line, column and the expected form."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest

from pilothouse_client.apply.documents import load, parse
from pilothouse_manifests.translator.nodes import Mapping, Node, ScalarNode, SequenceNode
from pilothouse_manifests.translator.problems import Problems


def read(text: str) -> list[Node]:
    problems = Problems()
    documents = parse(text, "a.yaml", problems)
    assert not problems.all
    return [document.root for document in documents]


def refusal(text: str) -> str:
    problems = Problems()
    assert parse(text, "a.yaml", problems) == []
    (problem,) = problems.all
    return str(problem)


def at(node: Node, *path: str | int) -> Node:
    for step in path:
        if isinstance(step, int):
            assert isinstance(node, SequenceNode)
            node = node.items[step]
        else:
            assert isinstance(node, Mapping)
            node = node.entries[step].value
    return node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c\n", "a.yaml:1:5: expected the end of the value, found ':'"),
        ("a:\n\tb: 1\n", "a.yaml:2:1: expected spaces, found a tab"),
        ("a: [1, 2\nb: 3\n", "a.yaml:2:2: expected ',' or ']'"),
        ("a: {x: 1\n", "a.yaml:2:1: expected ',' or '}'"),
        ("a: 'x\n", "a.yaml:2:1: expected the closing quote, found the end of the file"),
        ("a: 'it's'\n", "a.yaml:1:8: expected the end of the block mapping of line 1, found more text"),
        ("a:\n  - x\n  y: 1\n", "a.yaml:3:3: expected an item that begins with '- '"),
        ("a:\n  y: 1\n  - x\n", "a.yaml:3:3: expected a key"),
        ("a: 1\n---\nb:\n  c: 1\n d: 2\n", "a.yaml:5:2: expected"),
        ("key: value\nother\n", "a.yaml:3:1: expected ':' after the key"),
        ("a: *x\n", "a.yaml:1:4: expected YAML: found undefined alias 'x'"),
        ("a: &x 1\nb: &x 2\n", "a.yaml:2:4: expected each anchor once, found it again; first in line 1"),
        ("a: @x\n", "a.yaml:1:4: expected"),
        ('a: "\\q"\n', "a.yaml:1:6: expected"),
        ("%YAML 3.0\n---\na: 1\n", "a.yaml:1:1: expected"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1: expected each key once, found 'a' again; first in line 1"),
        ("8080: x\n", "a.yaml:1:1: expected a text as key, found '8080'; put it in quotes"),
        ("? [a]\n: b\n", "a.yaml:1:3: expected a text as key, found a list or mapping"),
        ("<<: 3\n", "a.yaml:1:1: expected a mapping, or a list of them, after '<<'"),
        ("a: !thing 1\n", "a.yaml:1:4: expected plain YAML, found the tag !thing"),
        ("a: !!python/object:os.system 1\n", "a.yaml:1:4: expected plain YAML, found the tag"),
        ("a: &x [*x]\n", "a.yaml:1:4: expected a tree, found an alias to a part that contains it"),
        ("a: 1\nb: \x07\n", "a.yaml:2:4: expected text, found a character that YAML forbids: U+0007"),
        ("[" * 5000, "a.yaml:1:1: expected a document, found one that is nested too deeply"),
    ],
)
@pytest.mark.usefixtures("no_finalizers")
def test_malformed_text_is_reported_with_position_and_expectation(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def test_every_node_has_its_position() -> None:
    (root,) = read("# a comment\na:\n  - b: 1\n    c: two\n  - x\n")
    assert at(root, "a", 0, "c") == ScalarNode(at(root, "a", 0, "c").place, "two", "string")
    assert at(root, "a", 0, "c").place.exact == "a.yaml:4:8"
    assert at(root, "a", 1).place.exact == "a.yaml:5:5"
    assert isinstance(root, Mapping)
    assert root.entries["a"].place.exact == "a.yaml:2:1"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("12:30", "string"),
        ("2024-01-01", "string"),
        ("1.2.3", "string"),
        ("0o17", "integer"),
        ("0777", "integer"),
        ("0x1F", "integer"),
        ("-3", "integer"),
        ("0.5", "float"),
        ("1e3", "float"),
        ("'8080'", "string"),
        ("!!str 8080", "string"),
        ("yes", "boolean"),
        ("off", "boolean"),
        ("~", "null"),
        ("", "null"),
        ("100m", "string"),
    ],
)
def test_scalars_have_the_types_that_kubernetes_reads(text: str, kind: str) -> None:
    (root,) = read(f"a: {text}\n")
    value = at(root, "a")
    assert isinstance(value, ScalarNode)
    assert value.kind == kind


def test_anchors_and_merge_keys_keep_the_original_position() -> None:
    (root,) = read("base: &base\n  cpu: 1\n  memory: 2\nmade:\n  <<: *base\n  cpu: 3\nsame: *base\n")
    assert at(root, "made", "cpu").place.line == 6
    assert at(root, "made", "memory").place.line == 3
    assert at(root, "same") is at(root, "base")


def nested_aliases(levels: int, each: int) -> str:
    """Returns nested lists that expand to about `each` to the power of `levels` texts."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * each)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        nested_aliases(7, 9),
        nested_aliases(60, 9),
        f"a: &a {{{', '.join(f'k{n}: {n}' for n in range(100))}}}\nb: {{<<: [{', '.join(['*a'] * 2000)}]}}\n",
    ],
    ids=["a-million", "a-billion", "merged"],
)
def test_aliases_that_expand_too_far_are_refused_within_little_memory(text: str) -> None:
    assert len(text) < 10_000
    tracemalloc.start()
    told = refusal(text)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "expected at most 1048576 characters with all aliases expanded, found more; use fewer" in told
    assert most < 10 * 2**20


def test_a_long_document_and_ordinary_aliases_are_read() -> None:
    (root,) = read(f"a: [{', '.join(['abcdefgh'] * 5_000)}]\n")
    value = at(root, "a")
    assert isinstance(value, SequenceNode)
    assert len(value.items) == 5_000
    assert read(nested_aliases(5, 9))


def test_empty_documents_are_skipped_and_their_lines_counted() -> None:
    first, second = read("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n")
    assert (first.place.line, second.place.line) == (3, 7)


def test_sources_are_files_folders_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.yml").write_text("name: b\n")
    (tmp_path / "folder" / "a.json").write_text('{"name": "a"}\n')
    (tmp_path / "folder" / "notes.txt").write_text("name: [\n")
    (tmp_path / "one.yaml").write_text("\ufeffname: one\n", encoding="utf-8")
    problems = Problems()
    sources = [str(tmp_path / "one.yaml"), str(tmp_path / "folder"), "-"]
    documents = load(sources, problems, io.BytesIO(b"name: stdin\n"))
    assert not problems.all
    assert [at(document.root, "name") for document in documents] == [
        ScalarNode(at(document.root, "name").place, text, "string")
        for document, text in zip(documents, ["one", "a", "b", "stdin"], strict=True)
    ]
    assert documents[-1].place.file == "stdin"


def test_unreadable_files_do_not_hide_readable_ones(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "good.yaml").write_text("a: 1\n")
    problems = Problems()
    names = ["missing.yaml", "empty", "latin.yaml", "broken.yaml", "good.yaml"]
    documents = load([str(tmp_path / name) for name in names], problems)
    assert [document.place.file for document in documents] == [str(tmp_path / "good.yaml")]
    told = [str(problem).removeprefix(f"{tmp_path}/") for problem in problems.all]
    assert told == [
        "broken.yaml:2:1: expected a value, but found the end of the file, in the value of line 2",
        "empty: expected files named *.yaml, *.yml, *.json, found none of them",
        "latin.yaml:2:7: expected text in UTF-8, found the byte 0xe9",
        "missing.yaml: expected a file or folder that can be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("a: 2\t\nb: 1\n", ("a",), "2"),
        ("a: x\t# why\nb: 1\n", ("a",), "x"),
        ("a: x \t \nb: 1\n", ("b",), "1"),
        ("a:\tx\n", ("a",), "x"),
        ("a: 'x'\t\n", ("a",), "x"),
        ("a:\t# why\n  b: 1\n", ("a", "b"), "1"),
        ("a: x\ty\n", ("a",), "x\ty"),
        ("a: x\t\n  y\n", ("a",), "x y"),
        ("a: {b:\t1,\tc: 2}\n", ("a", "c"), "2"),
        ("a: [1,\t2\t]\t\n", ("a", 1), "2"),
    ],
    ids=repr,
)
def test_tabs_after_a_value_are_whitespace(text: str, path: tuple[str | int, ...], expected: str) -> None:
    (root,) = read(text)
    found = at(root, *path)
    assert isinstance(found, ScalarNode)
    assert found.text == expected


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "a:\n- x\n\t- y\n", "\ta: 1\n"], ids=repr)
def test_tabs_that_indent_are_refused(text: str) -> None:
    assert "expected spaces, found a tab" in refusal(text)
