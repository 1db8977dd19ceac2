"""The texts of the SQL functions, as of each migration.

A function's present text is `functions/NAME.sql`. A migration that changes functions names them (`replaces =
("lease_work",)`) and keeps their former texts in `versions/NNNN_x/before/`; a function without a former text is new. So
the text as of migration N is the former text kept by the first later migration that names the function, or the present
text if there is none. The baseline creates every function in its text as of the baseline.

All files are read once: a migration of an empty database looks up thousands of texts.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sources:
    """The folders of functions and migrations."""

    functions: Path
    versions: tuple[Path, ...]


SOURCES = Sources(FOLDER / "functions", (FOLDER / "versions",))


def split(sql: str) -> Iterator[str]:
    """Yields the single statements of `sql`, without their closing semicolons and the comments before them.

    A statement ends at a semicolon that ends a line, outside of `$$` quotes.
    """
    buffer: list[str] = []
    quoted = False
    for line in sql.splitlines():
        if not buffer and (not line.strip() or line.startswith("--")):
            continue
        buffer.append(line)
        if not quoted and line.lstrip().startswith("--"):
            continue
        quoted ^= line.count("$$") % 2 == 1
        if not quoted and line.rstrip().endswith(";"):
            yield "\n".join(buffer).strip().removesuffix(";")
            buffer.clear()
    if rest := "\n".join(buffer).strip():
        yield rest


@cache
def checksum(text: str) -> str:
    """Returns SHA-256 in hex over the statements of a function's file.

    The comment in its head does not count.
    """
    return hashlib.sha256("\n".join(split(text)).encode()).hexdigest()


def replaced() -> Mapping[str, tuple[str, ...]]:
    """Returns the functions that each migration names, oldest migration first.

    The baseline names none.
    """
    return _replaced(SOURCES)


def before(name: str, revision: str) -> str | None:
    """Returns the text that migration `revision` replaces, or None for a function that it creates."""
    return _former_texts(SOURCES).get((revision, name))


def text_at(name: str, revision: str) -> str | None:
    """Returns the text of a function once `revision` is applied, or None if there is no such function then."""
    for later, names in replaced().items():
        if later > revision and name in names:
            return before(name, later)
    return _present_texts(SOURCES).get(name)


def names() -> list[str]:
    """Returns all functions that any migration of this release creates."""
    return sorted({*_present_texts(SOURCES)}.union(*replaced().values()))


def changed_by(revision: str) -> list[str]:
    """Returns the functions that migration `revision` creates, changes or drops."""
    baseline, *_ = known = replaced()
    return names() if revision == baseline else list(known[revision])


def all_at(revision: str) -> dict[str, tuple[str, str]]:
    """Returns each function's checksum and the migration that gave its text, once `revision` is applied."""
    baseline, *_ = known = replaced()

    def version(name: str) -> str:
        """Returns the newest migration up to `revision` that gave the function its text."""
        return max(
            (each for each, names in known.items() if each <= revision and name in names), default=baseline
        )

    texts = {name: text_at(name, revision) for name in names()}
    return {name: (checksum(text), version(name)) for name, text in texts.items() if text}


@cache
def _replaced(sources: Sources) -> Mapping[str, tuple[str, ...]]:
    found = (
        _constants(path.read_text("utf-8")) for folder in sources.versions for path in folder.glob("v*.py")
    )
    return {each["revision"]: tuple(each.get("replaces", ())) for each in sorted(found, key=_revision)}


@cache
def _former_texts(sources: Sources) -> Mapping[tuple[str, str], str]:
    """Returns each former text by the migration that replaces it and the name of the function."""
    return {
        (path.parts[-3].partition("_")[0], path.stem): path.read_text("utf-8")
        for folder in sources.versions
        for path in folder.glob("*_*/before/*.sql")
    }


@cache
def _present_texts(sources: Sources) -> Mapping[str, str]:
    return {path.stem: path.read_text("utf-8") for path in sources.functions.glob("*.sql")}


def _constants(module: str) -> dict[str, Any]:
    """Returns constants of a migration, read without executing it, because a server needs them without Alembic."""
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(module).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in ("revision", "replaces")
    }


def _revision(constants: dict[str, Any]) -> str:
    return str(constants["revision"])
