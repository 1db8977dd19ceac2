"""Ruff's configured bounds and bans report their faults: each sample breaks one; with one line less, it passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conventions.sources import ROOT

pytestmark = pytest.mark.full

_BRANCHES = "".join(f"    if a == {number}:\n        a += 1\n" for number in range(10))
_PARAMETERS = ", ".join(f"a{number}: int" for number in range(9))

CASES = [
    # (rule, code that breaks it, code that passes)
    (
        "C901",
        f"def f(a: int) -> int:\n{_BRANCHES}    return a\n",
        f"def f(a: int) -> int:\n{_BRANCHES[: _BRANCHES.rindex('    if')]}    return a\n",
    ),
    ("PLR0913", f"def f({_PARAMETERS}) -> None: ...\n", f"def f({_PARAMETERS[:-9]}) -> None: ...\n"),
    ("TID252", "from . import a\n", "from pilothouse_server import a\n"),
    ("TID252", "from .a import b\n", "from pilothouse_server.a import b\n"),
]


def _findings(code: str) -> str:
    """Returns ruff's findings in a file of the server, under the rules of pyproject.toml."""
    finished = subprocess.run(
        [
            Path(sys.executable).parent / "ruff",
            "check",
            "--no-cache",
            "--output-format=concise",
            "--stdin-filename=server/pilothouse_server/sample.py",
            "-",
        ],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.stdout


@pytest.mark.parametrize(("rule", "broken", "kept"), CASES)
def test_ruff_reports_the_broken_code_and_passes_the_other(rule: str, broken: str, kept: str) -> None:
    assert f" {rule} " in _findings(broken)
    assert f" {rule} " not in _findings(kept)
