"""The project's own files as the checks see them: tracked and new files of git, without generated code."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("client/gen/",)


def script_of(name: str) -> ModuleType:
    """Imports a script of `.ci/` and returns it as a new module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Source:
    """A text file: its path within the project, and its content."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed module; empty if the file does not parse, which ruff reports."""
        try:
            return ast.parse(self.text)
        except SyntaxError:
            return ast.Module(body=[], type_ignores=[])

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_test(self) -> bool:
        return self.is_python and self.path.startswith("tests/")


def load(root: Path = ROOT) -> list[Source]:
    """Returns every text file under `root` that is tracked or not ignored by git, ordered by path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    sources = []
    for path in sorted(set(listed.stdout.split("\0")) - {""}):
        if path.startswith(GENERATED) or not (root / path).is_file():
            continue
        try:
            sources.append(Source(path, (root / path).read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return sources
