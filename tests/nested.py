"""Runs pytest on a generated file, with the project's plugins and nothing else of the project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.waiting import patient

ROOT = Path(__file__).parents[1]
_PLUGINS = ("-p", "tests.tiers", "-p", "tests.hang_and_leak")


def pytest_run(
    directory: Path,
    text: str,
    *options: str,
    in_the_background: bool = False,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Returns the exit code and the output.

    `in_the_background` ignores interrupts, as a shell does for background commands.
    """
    (directory / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    full(minutes): x\n    soak(part): x\n"
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    (directory / "test_of_its_own.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    # Through a shell: gRPC's fork handlers run between a fork and the exec of the program, and may abort.
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if in_the_background else []
    ended = subprocess.run(
        # Loading Hypothesis would take as long as everything else.
        [*ignoring, sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", *_PLUGINS, *options],
        cwd=directory,
        env={**kept, "PYTHONPATH": str(ROOT), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(120.0),
    )
    return ended.returncode, ended.stdout + ended.stderr
