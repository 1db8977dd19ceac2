"""The lint step `words`: plain English, and one meaning for each class name.

The step reads prose only: docstrings, comments, comments of protos and SQL, pages, and texts in the product's strings.
Code in backticks and fences is left out. Each rule has a limit for each part of the project. A limit is the number of
findings on the day it was written, so it may only fall: lower it after you rewrite, never raise it. The goals are 0
for every rule but `docstring` (200) and `class name` (25).

`python -m tests.conventions.words` prints the present numbers, and `python -m tests.conventions.words RULE PART` each
finding.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from tests.conventions.sources import ROOT, Source, load

PARTS = ("server", "client", "migrations", "protos", "docs", "tests")

# The largest number of findings of each rule in each part.
LIMITS: Mapping[str, Mapping[str, int]] = {
    "headless": {"server": 0, "client": 0, "migrations": 0, "protos": 0, "docs": 0, "tests": 0},
    "docstring": {"server": 12, "client": 0, "migrations": 0, "tests": 0},
    "banned": {"server": 0, "client": 0, "migrations": 0, "protos": 0, "docs": 0, "tests": 0},
    "class name": {"server": 16},
}

_WITH_TEXTS = ("server/", "client/", "migrations/")
# This module and its controls quote the words that they forbid.
_QUOTING = ("tests/conventions/words.py", "tests/conventions/test_words.py")
_MOST_SHOWN = 30

# The opening of a sentence: after the end of another one, or at the start of a block.
_SENTENCE = re.compile(
    r"(?:\A|(?<=[.!?])[)\"'*_]*\s)\s*([\"'(*_]*(?:Who|What|Whose|Whom|Whoever|Whatever)\b[^.!?]*[.!?]?)"
)
# A relative without a noun before it. "A server whose lease" has one; "of whose" does not.
_NO_NOUN = (
    "a also an and are as ask asks at be but by decides find finds for from give gives if in into is know knows of on "
    "only or reads records say says see sees shows tell tells than that the then to under was when where with without"
)
_CLAUSE = re.compile(
    r"\bwhat(ever)?\b|\bwhoever\b|(?:\A|[.,;:!?(]\s*|(?<![\w-])(?:"
    + _NO_NOUN.replace(" ", "|")
    + r")\s+)who(se|m)?\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_CODE = re.compile(r"`+[^`\n]*`+")


@dataclass(frozen=True)
class Block:
    """Prose that belongs together, with the line where it begins."""

    path: str
    line: int
    text: str
    is_docstring: bool = False

    def line_of(self, offset: int) -> int:
        return self.line + self.text.count("\n", 0, offset)


@dataclass(frozen=True)
class Banned:
    """A word that style.md replaces by another one."""

    pattern: re.Pattern[str]
    instead: str


def _banned(pattern: str, instead: str) -> Banned:
    return Banned(re.compile(rf"\b(?:{pattern})\b".replace(" ", r"\s+"), re.IGNORECASE), instead)


# Only words that have no right use in this project. Each is in style.md's rule 5 or 6, or in its table.
BANNED: Sequence[Banned] = (
    _banned(r"(?<!are\s)(?<!were\s)(?<!is\s)all the same(?=[,.;:)]|$)", "but, nevertheless"),
    _banned("besides", "also"),
    _banned("beside", "next to"),
    _banned("meanwhile", "during that time, until then"),
    _banned("of ours", "our"),
    _banned("anew", "again"),
    _banned("at once", "immediately, or concurrently"),
    _banned("you have come|come back later", "retry with backoff"),
    _banned("outsiders?", "infrastructure service"),
    _banned("strangers?", "anonymous caller"),
    _banned("trickles?", "small chunks"),
    _banned("way_in", "request_stream"),
    _banned("way_back", "response_stream"),
    _banned("homeless", "namespace_not_ready"),
    _banned("far_ahead", "clock-skew repair"),
    _banned("lost_sessions", "dead-connection reaper"),
)
_ANY_BANNED = re.compile("|".join(word.pattern.pattern for word in BANNED), re.IGNORECASE)


def headless(block: Block) -> Iterator[tuple[int, str]]:
    """Yields line and message of each sentence, but not question, that begins with a relative without a noun."""
    for found in _SENTENCE.finditer(block.text):
        if not found[1].rstrip(")\"'*_ ").endswith("?"):
            opening = " ".join(found[1].split()[:4])
            yield (
                block.line_of(found.start(1)),
                f'the sentence "{opening} …" begins with a relative: name its noun ("A caller that …")',
            )


def docstring(block: Block) -> Iterator[tuple[int, str]]:
    """Yields one finding for a docstring that contains a relative clause without a noun."""
    found = _CLAUSE.search(block.text) if block.is_docstring else None
    if found:
        word = found[0].split()[-1].strip("(,.;:")
        yield (
            block.line_of(found.end() - 1),
            f'the docstring has a clause with "{word}" and no noun: name the thing ("the rows that …")',
        )


def banned(block: Block) -> Iterator[tuple[int, str]]:
    """Yields each word that style.md replaces."""
    if not _ANY_BANNED.search(block.text):
        return
    for word in BANNED:
        for found in word.pattern.finditer(block.text):
            yield block.line_of(found.start()), f'"{" ".join(found[0].split())}": write {word.instead}'


_RULES: Mapping[str, Callable[[Block], Iterator[tuple[int, str]]]] = {
    "headless": headless,
    "docstring": docstring,
    "banned": banned,
}
CLASS_NAMES = "class name"


def part_of(path: str) -> str | None:
    """Returns the part of the project that a file counts for, or None if the rules do not apply."""
    if path.startswith("client/gen/") or path in _QUOTING:
        return None
    if path.endswith(".md"):
        return "docs"
    first = path.partition("/")[0]
    return first if first in PARTS else None


def findings(sources: Sequence[Source]) -> dict[tuple[str, str], list[str]]:
    """Returns every finding of every rule, as `path:line: message`, by rule and part."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source in sources:
        part = part_of(source.path)
        if part is None:
            continue
        for block in blocks(source):
            for rule, check in _RULES.items():
                found[rule, part] += [f"{block.path}:{line}: {message}" for line, message in check(block)]
    found[CLASS_NAMES, "server"] = list(shared_class_names(sources))
    return found


def over_limits(
    found: Mapping[tuple[str, str], Sequence[str]], limits: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    """Yields, for each rule and part with too many findings, the numbers, then the findings.

    Findings in files that differ from the branch `main` of the remote come first.
    """
    for (rule, part), lines in sorted(found.items()):
        limit = limits.get(rule, {}).get(part, 0)
        if len(lines) <= limit:
            continue
        yield f"{rule}, {part}: {len(lines)} findings, {limit} allowed: rewrite at least {len(lines) - limit} of these"
        changed = _changed()
        shown = sorted(lines, key=lambda line: line.partition(":")[0] not in changed)
        yield from shown[:_MOST_SHOWN]
        if len(shown) > _MOST_SHOWN:
            yield f"… all of them: python -m tests.conventions.words '{rule}' {part}"


def _changed() -> set[str]:
    """Returns the paths of files that differ from the remote's `main`; empty if there is no remote."""
    listed = subprocess.run(
        ["git", "diff", "--name-only", "origin/main"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return set(listed.stdout.splitlines())


def shared_class_names(sources: Sequence[Source]) -> Iterator[str]:
    """Yields a finding for each public class name that two or more modules of the product define."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        if source.is_python and source.path.startswith(("server/", "client/pilothouse_")):
            for node in source.tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(f"{source.path}:{node.lineno}")
    for name, where in sorted(places.items()):
        if len(where) > 1:
            others = ", ".join(where[1:])
            yield f"{where[0]}: class {name} stands in {others}, too: qualify one name"


def blocks(source: Source) -> Iterator[Block]:
    """Yields the prose of a file, with the code in backticks blanked out."""
    if source.is_python:
        found = _of_python(source)
    elif source.path.endswith(".proto"):
        found = _of_comments(source, re.compile(r"(?:^|\s)//+(.*)$"))
    elif source.path.endswith(".sql"):
        found = _of_comments(source, re.compile(r"(?:^|\s)--(.*)$"))
    elif source.path.endswith(".md"):
        found = _of_page(source)
    else:
        return
    for block in found:
        text = _CODE.sub(lambda code: "`" + "x" * (len(code[0]) - 2) + "`", block.text)
        yield Block(block.path, block.line, text, block.is_docstring)


def _of_python(source: Source) -> Iterator[Block]:
    docstrings: set[int] = set()
    within: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.end_lineno is not None and node.end_lineno > node.lineno:
                within.update(range(node.lineno, node.end_lineno + 1))
            if id(node) in docstrings:
                yield Block(source.path, node.lineno, node.value, is_docstring=True)
            elif source.path.startswith(_WITH_TEXTS) and " " in node.value:
                yield Block(source.path, node.lineno, node.value)
    yield from _of_comments(source, re.compile(r"(?:^|  )#(.*)$"), without=within)


def _of_comments(
    source: Source, pattern: re.Pattern[str], without: Set[int] = frozenset()
) -> Iterator[Block]:
    """Yields comments; adjacent lines that contain only a comment are one block."""
    begun = 0
    gathered: list[str] = []
    for number, line in enumerate((*source.lines, ""), 1):
        found = None if number in without else pattern.search(line)
        alone = found is not None and not line[: found.start()].strip()
        if gathered and not alone:
            yield Block(source.path, begun, "\n".join(gathered))
            gathered = []
        if found is not None and alone:
            begun = begun if gathered else number
            gathered.append(found[1])
        elif found is not None:
            yield Block(source.path, number, found[1])


def _of_page(source: Source) -> Iterator[Block]:
    """Yields paragraphs, list items and cells of tables. Headings and fences are left out."""
    begun, fence = 0, ""
    gathered: list[str] = []
    for number, line in enumerate((*source.lines, ""), 1):
        found = _FENCE.match(line)
        apart = bool(fence or found or line.startswith(("#", "|")) or not line.strip() or _ITEM.match(line))
        if gathered and apart:
            yield Block(source.path, begun, "\n".join(gathered))
            gathered = []
        if found:
            fence = "" if fence and line.strip() == fence else fence or found[1]
        elif fence or line.startswith("#") or not line.strip():
            continue
        elif line.startswith("|"):
            for cell in line.strip().strip("|").split("|"):
                yield Block(source.path, number, cell.strip())
        else:
            begun = begun if gathered else number
            gathered.append(_ITEM.sub("", line))


def main(words: Sequence[str]) -> int:
    found = findings(load())
    if len(words) == 2:
        print("\n".join(found[words[0], words[1]]))
        return 0
    for (rule, part), lines in sorted(found.items()):
        print(f"{rule:12} {part:12} {len(lines):5} of {LIMITS.get(rule, {}).get(part, 0)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
