"""Migrations that exist only for a test, on top of those of the release, with their own function texts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from pilothouse_migrations import functions, runner, schema

_HEAD = '''"""{title}."""

from pilothouse_migrations import statements

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None
'''


@dataclass(frozen=True)
class StandIn:
    """A migration: the bodies of its two functions, and more constants.

    `texts` has the new text of each SQL function that it replaces, or None for a function that it drops.
    """

    up: str = "pass"
    down: str = "pass"
    texts: Mapping[str, str | None] = field(default_factory=dict)
    constants: str = ""
    serves_from: str = "0.1.0"


def text_of(name: str) -> str:
    """Returns the present text of a function."""
    return (functions.FOLDER / "functions" / f"{name}.sql").read_text("utf-8")


@contextmanager
def standing_in(
    folder: Path, *migrations: StandIn, unnamed: Mapping[str, str] = MappingProxyType({})
) -> Iterator[list[str]]:
    """Adds these migrations to the release until the end of the block.

    Yields their ids, oldest first. `unnamed` contains texts of functions that no migration names.
    """
    texts, versions = folder / "functions", folder / "versions"
    shutil.copytree(functions.FOLDER / "functions", texts)
    versions.mkdir()
    last, made = runner.head(), []
    for number, migration in enumerate(migrations, 1):
        revision = f"{9000 + number}"
        for name, text in migration.texts.items():
            path = texts / f"{name}.sql"
            if path.exists():
                before = versions / f"{revision}_stand_in" / "before"
                before.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, before)
            path.unlink(missing_ok=True) if text is None else path.write_text(text, "utf-8")
        head = _HEAD.format(title="A stand-in", revision=revision, down_revision=last)
        constants = f"serves_from = {migration.serves_from!r}\nreplaces = {tuple(migration.texts)!r}\n"
        up = f"{_indented(migration.up)}    statements.replace_functions(revision)\n"
        down = f"    statements.restore_functions(revision)\n{_indented(migration.down)}"
        (versions / f"v{revision}_stand_in.py").write_text(
            f"{head}{constants}{migration.constants}\n\ndef upgrade() -> None:\n{up}"
            f"\n\ndef downgrade() -> None:\n{down}",
            "utf-8",
        )
        last = revision
        made.append(revision)
    for name, text in unnamed.items():
        (texts / f"{name}.sql").write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        sources = functions.Sources(texts, (functions.FOLDER / "versions", versions))
        patch.setattr(functions, "SOURCES", sources)
        patch.setattr(schema, "CHECKSUMS", runner.checksums())
        patch.setattr(schema, "FUNCTIONS", functions.all_at(runner.head()))
        yield made


def _indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.strip().splitlines())
