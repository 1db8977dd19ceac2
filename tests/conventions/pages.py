"""The conventions of the pages: each a function from sources to findings, as in checks.py.

A page that nothing runs goes out of date. So every command on a page is in a test, every link has a target, and every
path and name that a page about the code mentions exists. test_pages.py breaks each convention on purpose.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import PurePosixPath

from tests.conventions.checks import Check
from tests.conventions.sources import GENERATED, ROOT, Source

README = "README.md"
# The README must not take a new reader more than five minutes.
README_WORDS = 1600
README_COLUMNS = 120
# tests/readme/test_pages.py reads these pages, runs each command, and compares its output.
RUN_AS_A_WHOLE = {"docs/tutorial.md", "docs/daily.md"}
SHELLS = {"console", "sh", "bash", "shell"}
# The pages that describe the structure of the code.
ARCHITECTURE = "ARCHITECTURE.md"
GUIDES = {ARCHITECTURE, "CONTRIBUTING.md"}
SECURITY, LIMITS = "docs/security.md", "docs/limits.md"
# An operator reads this page before others can reach the server.
SECURITY_WORDS = 2500
SETTINGS = "server/pilothouse_server/settings/model.py"
FLOWCONTROL = "server/pilothouse_server/flowcontrol/"
CLIENT = "client/pilothouse_client/__init__.py"
CONTRACTS_HEADING = "## What may import what"

# The calls by which the code names a class of calls.
_CLASS = re.compile(r'(?:SeatClass|_pending|_refusals)\(\s*"([a-z_ ]+)"')
_FENCE = re.compile(r"^(`{3,})(\w*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
_CODE = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"[\w.<>*-]+(/[\w.<>*-]+)*/?")
_ENDINGS = (".py", ".md", ".toml", ".proto", ".lock", ".yaml", ".sh")
# Folders that are created on a machine and not committed.
_MADE = (".venv", ".pilothouse", "dist")
_LABEL_KEY = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/")
# A name that cannot be an English word: it has an underscore, a second capital, or is called.
_NAME = re.compile(r"(?:[A-Za-z]\w*\.)*(_?[A-Za-z]\w*)(\(\))?")
_TELLS_OF_CODE = re.compile(r"\w_\w|[a-z]\w*[A-Z]")


def is_page(source: Source) -> bool:
    """Returns whether a file is a page whose commands must work. A changelog describes former states."""
    path = PurePosixPath(source.path)
    return source.path in {README, *GUIDES} or (path.parts[0] == "docs" and path.suffix == ".md")


def commands_are_tested(sources: Sequence[Source]) -> Iterator[str]:
    """Reports commands on pages that no test contains."""
    tests = " ".join(" ".join(source.text.split()) for source in sources if source.path.startswith("tests/"))
    for source in filter(is_page, sources):
        if source.path in RUN_AS_A_WHOLE:
            continue
        for number, command in commands(source):
            if command not in tests:
                yield f"{source.path}:{number}: no test under tests/ holds the command `{command}`"


def commands(page: Source) -> Iterator[tuple[int, str]]:
    """Yields the line and the text of each command in a fenced shell block; in `console`, of each `$ ` line.

    Continued lines are joined, and white space is reduced to single blanks. Comments are left out.
    """
    language = ""
    begun: list[str] = []
    for number, line in _fenced(page):
        language, text = line[0], line[1].strip()
        if language not in SHELLS:
            continue
        if not begun:
            if language == "console":
                if not text.startswith("$ "):
                    continue
                text = text[2:]
            if not text or text.startswith("#"):
                continue
        begun.append(text.removesuffix("\\"))
        if not text.endswith(("\\", "|")):
            yield number, " ".join(" ".join(begun).split())
            begun = []


def _fenced(page: Source) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yields the number, language and text of the lines within fences."""
    fence = language = ""
    for number, line in enumerate(page.lines, 1):
        found = _FENCE.match(line)
        if found and not fence:
            fence, language = found[1], found[2]
        elif found and found[1] == fence and not found[2]:
            fence = ""
        elif fence:
            yield number, (language, line)


def _prose(page: Source) -> Iterator[tuple[int, str]]:
    """Yields the number and text of the lines outside of fences."""
    within = {number for number, _ in _fenced(page)}
    for number, line in enumerate(page.lines, 1):
        if number not in within and not _FENCE.match(line):
            yield number, line


def readme_is_short(sources: Sequence[Source]) -> Iterator[str]:
    """Reports a README that takes a new reader more than five minutes: the rest belongs to docs/."""
    for source in sources:
        if source.path != README:
            continue
        if (words := len(source.text.split())) > README_WORDS:
            yield f"{README}:1: {words} words, more than {README_WORDS}: move what is more into docs/"
        for number, line in enumerate(source.lines, 1):
            if len(line) > README_COLUMNS:
                yield f"{README}:{number}: {len(line)} columns, more than {README_COLUMNS}: break the line"


def links_lead_somewhere(sources: Sequence[Source]) -> Iterator[str]:
    """Reports links within the project without an existing file or folder, and anchors without a heading."""
    pages = {source.path: source for source in sources}
    folders = {str(folder) for path in pages for folder in PurePosixPath(path).parents}
    for source in sources:
        if not source.path.endswith(".md"):
            continue
        for number, line in _prose(source):
            for target in _LINK.findall(line):
                if "://" in target or target.startswith("mailto:"):
                    continue
                name, _, anchor = target.partition("#")
                path = _joined(PurePosixPath(source.path).parent, name) if name else source.path
                if path.endswith(".png") and (ROOT / path).is_file():
                    continue
                if path not in pages and path not in folders:
                    yield f"{source.path}:{number}: the link to {target} leads nowhere: there is no {path}"
                elif anchor and anchor not in anchors(pages.get(path)):
                    yield f"{source.path}:{number}: the link to {target} leads nowhere: no such heading in {path}"


def _joined(folder: PurePosixPath, name: str) -> str:
    parts: list[str] = []
    for part in (folder / name).parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts) or "."


def anchors(page: Source | None) -> set[str]:
    """Returns the anchors of a page's headings, as Markdown viewers generate them."""
    if page is None:
        return set()
    found: set[str] = set()
    for _, line in _prose(page):
        if heading := _HEADING.match(line):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            number, numbered = 0, slug
            while numbered in found:
                number += 1
                numbered = f"{slug}-{number}"
            found.add(numbered)
    return found


def docs_are_listed(sources: Sequence[Source]) -> Iterator[str]:
    """Reports pages that the README does not link: readers would not find them."""
    readme = next((source for source in sources if source.path == README), None)
    linked = {target.partition("#")[0] for target in _LINK.findall(readme.text)} if readme else set()
    for source in sources:
        if is_page(source) and source.path.startswith("docs/") and source.path not in linked:
            yield f"{source.path}:1: README.md has no link to this page: add one"


def paths_exist(sources: Sequence[Source]) -> Iterator[str]:
    """Reports paths in backticks that do not exist, even as the end of a path; `<noun>` and `*` match any name."""
    paths = {source.path for source in sources}
    paths |= {str(folder) for path in paths for folder in PurePosixPath(path).parents}

    @cache
    def is_there(token: str) -> bool:
        pattern = re.sub(r"<[^>]*>|\*", "\0", token.rstrip("/"))
        parts = (re.escape(part) for part in pattern.split("\0"))
        whole = re.compile(r"(?:.*/)?" + "[^/]+".join(parts))
        return any(whole.fullmatch(path) for path in paths)

    for source in filter(is_page, sources):
        for number, line in _prose(source):
            for token in _CODE.findall(line):
                if _is_path(token) and not is_there(token):
                    yield f"{source.path}:{number}: there is no `{token}`: write what is there now"


def _is_path(token: str) -> bool:
    if not _PATH.fullmatch(token) or token.split("/")[0] in _MADE or _LABEL_KEY.match(token):
        return False
    if f"{token}/".startswith(GENERATED):
        return False
    return "/" in token or (token.endswith(_ENDINGS) and token not in _ENDINGS)


def names_exist(sources: Sequence[Source]) -> Iterator[str]:
    """Reports names of code in backticks, such as `UnitOfWork`, that do not occur in the code."""
    words = _words(sources)
    for source in sources:
        if source.path not in GUIDES:
            continue
        for number, line in _prose(source):
            for token in _CODE.findall(line):
                found = _NAME.fullmatch(token)
                if _is_path(token) or found is None or not (found[2] or _TELLS_OF_CODE.search(token)):
                    continue
                if found[1] not in words:
                    yield f"{source.path}:{number}: no code names `{token}`: write what it is called now"


def contracts_are_explained(sources: Sequence[Source]) -> Iterator[str]:
    """Reports differences between the import contracts and the table of them in ARCHITECTURE.md."""
    pages = {source.path: source for source in sources}
    if ARCHITECTURE not in pages or "pyproject.toml" not in pages:
        return
    linter = tomllib.loads(pages["pyproject.toml"].text).get("tool", {}).get("importlinter", {})
    contracts = {contract["id"] for contract in linter.get("contracts", [])}
    explained: dict[str, int] = {}
    heading = ""
    for number, line in _prose(pages[ARCHITECTURE]):
        heading = line if line.startswith("#") else heading
        if heading == CONTRACTS_HEADING and line.startswith("| `"):
            explained |= dict.fromkeys(_CODE.findall(line.split("|")[1]), number)
    for contract in sorted(contracts - explained.keys()):
        yield f'{ARCHITECTURE}:1: the contract `{contract}` is not in the table "{CONTRACTS_HEADING}": explain it'
    for name in explained.keys() - contracts:
        yield f"{ARCHITECTURE}:{explained[name]}: pyproject.toml has no contract `{name}`: take it out"


def security_is_short(sources: Sequence[Source]) -> Iterator[str]:
    """Reports a page on security of more than 2,500 words: limits, keys and TLS have pages of their own."""
    for source in sources:
        if source.path == SECURITY and (words := len(source.text.split())) > SECURITY_WORDS:
            yield f"{SECURITY}:1: {words} words, more than {SECURITY_WORDS}: move details to limits.md, keys.md, tls.md"


def limits_are_listed(sources: Sequence[Source]) -> Iterator[str]:
    """Reports settings that bound calls, metrics of their use, and labels of classes that docs/limits.md lacks."""
    pages = {source.path: source for source in sources}
    if LIMITS not in pages:
        return
    told = {token for _, line in _prose(pages[LIMITS]) for token in _CODE.findall(line)}
    names = [f"PILOTHOUSE_{name.upper()}" for name in _admission(pages.get(SETTINGS))]
    for path, page in pages.items():
        if path.startswith(FLOWCONTROL):
            names += re.findall(r'"(pilothouse_admission_\w+)"', page.text)
            names += sorted(classes(page))
    for name in names:
        if name not in told:
            yield f"{LIMITS}:1: the limit `{name}` is missing: write what it limits"


def settings_are_on_pages(sources: Sequence[Source]) -> Iterator[str]:
    """Reports settings that no page for operators names: such a setting should be a constant."""
    settings = next((source for source in sources if source.path == SETTINGS), None)
    told = {
        token
        for source in filter(is_page, sources)
        for token in re.findall(r"PILOTHOUSE_[A-Z0-9_]+", source.text)
    }
    for node in settings.tree.body if settings is not None else ():
        if isinstance(node, ast.ClassDef) and node.name == "Settings":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    name = f"PILOTHOUSE_{field.target.id.upper()}"
                    if name not in told:
                        yield f"{SETTINGS}:{field.lineno}: no page names {name}: say who sets it, or make it a constant"


def public_names_have_examples(sources: Sequence[Source]) -> Iterator[str]:
    """Reports public names of the client without an example; tests/client/test_examples.py runs the examples."""
    pages = {source.path: source for source in sources}
    for node in pages[CLIENT].tree.body if CLIENT in pages else ():
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULE_OF"):
            continue
        for name, module in ast.literal_eval(node.value).items():
            path = CLIENT.replace("__init__", module)
            for each in pages[path].tree.body:
                if not isinstance(each, ast.ClassDef | ast.FunctionDef) or each.name != name:
                    continue
                if ">>> " not in (ast.get_docstring(each) or ""):
                    yield f"{path}:{each.lineno}: {name} is public and has no example: add one to its docstring"


def classes(source: Source) -> set[str]:
    """Returns the labels of the classes of calls, which have no blanks."""
    return {name.replace(" ", "_") for name in _CLASS.findall(source.text)}


def _admission(settings: Source | None) -> Sequence[str]:
    """Returns the names of the settings that bound calls."""
    for node in settings.tree.body if settings is not None else ():
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "ADMISSION" for each in node.targets
        ):
            return tuple(ast.literal_eval(node.value))
    return ()


def _words(sources: Sequence[Source]) -> set[str]:
    folders = ("server/", "client/", "migrations/", "protos/", "tests/", "benchmarks/")
    code = (
        each
        for each in sources
        if each.path.startswith(folders) or each.path in ("Makefile", "pyproject.toml")
    )
    return {word for source in code for word in re.findall(r"\w+", source.text)}


CHECKS: Sequence[Check] = (
    commands_are_tested,
    readme_is_short,
    links_lead_somewhere,
    docs_are_listed,
    paths_exist,
    names_exist,
    contracts_are_explained,
    security_is_short,
    limits_are_listed,
    settings_are_on_pages,
    public_names_have_examples,
)
