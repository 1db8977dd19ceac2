"""The texts of the SQL functions, as of each migration.

A function's present text is `functions/NAME.sql`. A migration that changes functions names them
(`replaces = ("lease_work",)`) and keeps their former texts in `versions/NNNN_x/before/`; a function without a former
text is new. So the text as of migration N is the former text next to the first later migration that names the
function, and else the present one. The baseline creates every function in its text as of the baseline.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sources:
    """Where functions and migrations are read from."""

    functions: Path
    versions: tuple[Path, ...]


SOURCES = Sources(FOLDER / "functions", (FOLDER / "versions",))


def split(sql: str) -> Iterator[str]:
    """Yield the single statements of `sql`, without their closing semicolons and the comments before them.

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


def checksum(text: str) -> str:
    """SHA-256 in hex over the statements of a function's file; the comment in its head does not count."""
    return hashlib.sha256("\n".join(split(text)).encode()).hexdigest()


def replaced() -> dict[str, tuple[str, ...]]:
    """The functions that each migration names, oldest migration first; the baseline names none."""
    found = (
        _constants(path.read_text("utf-8")) for folder in SOURCES.versions for path in folder.glob("v*.py")
    )
    return {each["revision"]: tuple(each.get("replaces", ())) for each in sorted(found, key=_revision)}


def before(name: str, revision: str) -> str | None:
    """The text that migration `revision` replaces; None for a function that it creates."""
    for folder in SOURCES.versions:
        for path in folder.glob(f"{revision}_*/before/{name}.sql"):
            return path.read_text("utf-8")
    return None


def text_at(name: str, revision: str) -> str | None:
    """The text of a function once `revision` is applied; None where there is no such function then."""
    return _text_at(name, revision, replaced())


def _text_at(name: str, revision: str, known: Mapping[str, Sequence[str]]) -> str | None:
    for later, names in known.items():
        if later > revision and name in names:
            return before(name, later)
    path = SOURCES.functions / f"{name}.sql"
    return path.read_text("utf-8") if path.exists() else None


def names() -> list[str]:
    """All functions that any migration of this release creates."""
    present = {path.stem for path in SOURCES.functions.glob("*.sql")}
    return sorted(present.union(*replaced().values()))


def changed_by(revision: str) -> list[str]:
    """The functions whose texts migration `revision` gives or takes away."""
    baseline, *_ = known = replaced()
    return names() if revision == baseline else list(known[revision])


def all_at(revision: str) -> dict[str, tuple[str, str]]:
    """Function -> checksum of its text, and the migration that gave it, once `revision` is applied."""
    # Read once: there are thousands of pairs of a function and a migration.
    baseline, *_ = known = replaced()

    def version(name: str) -> str:
        """The newest migration up to `revision` that gave the function its text."""
        return max(
            (each for each, names in known.items() if each <= revision and name in names), default=baseline
        )

    texts = {name: _text_at(name, revision, known) for name in names()}
    return {name: (checksum(text), version(name)) for name, text in texts.items() if text}


@cache
def _constants(module: str) -> dict[str, Any]:
    """The constants of a migration by its text, read without executing it: a server needs them, and not Alembic."""
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(module).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in ("revision", "replaces")
    }


def _revision(constants: dict[str, Any]) -> str:
    return str(constants["revision"])
