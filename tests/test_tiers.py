"""What is skipped of the tier `full` fails in CI, and is counted everywhere; a soak test names its part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = """
import pytest

@pytest.mark.full
@pytest.mark.skip(reason="no such program")
def test_needs_a_program(): pass

@pytest.mark.skip(reason="not of the tier")
def test_of_every_change(): pass

def test_runs(): pass
"""


def pytest_run(directory: Path, text: str, *options: str, **variables: str) -> tuple[int, str]:
    """Runs pytest with the tiers on a file of its own; its exit code and what it printed."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    full: x\n    soak(part): x\n")
    (directory / "test_of_its_own.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.tiers", *options],
        cwd=directory,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("options", [(), ("--numprocesses", "1")], ids=["alone", "by another process"])
def test_a_skipped_test_of_the_full_tier_fails_in_ci(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED, *options, CI="true")
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "1 skipped of the tier `full`: in CI that is a failure" in printed


def test_elsewhere_it_is_counted(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED)
    assert code == 0, printed
    assert "1 skipped of the tier `full`: CI fails on that" in printed


def test_what_is_skipped_of_every_change_is_no_failure(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED, "-m", "not full", CI="true")
    assert code == 0, printed


def test_a_soak_test_without_a_part_is_refused(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, "import pytest\n\n@pytest.mark.soak\ndef test_a(): pass\n")
    assert code == pytest.ExitCode.USAGE_ERROR, printed
    assert 'write pytest.mark.soak(part="…")' in printed
