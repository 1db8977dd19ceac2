"""Runs pytest on a file of a test's own, with the project's plugins and nothing else of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.waiting import patient

ROOT = Path(__file__).parents[1]


def pytest_run(
    directory: Path,
    text: str,
    *options: str,
    before: Callable[[], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """The exit code and what it printed; `before` is called in the new process."""
    (directory / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    full: x\n    soak(part): x\n"
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    (directory / "test_of_its_own.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.tiers", "-p", "tests.endings", *options],
        cwd=directory,
        env={**kept, "PYTHONPATH": str(ROOT), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(60.0),
        preexec_fn=before,
    )
    return ended.returncode, ended.stdout + ended.stderr
