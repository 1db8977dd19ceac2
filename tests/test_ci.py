"""The report of .ci/run about tests that had to be repeated, with a fake `make` that fails as configured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nested import ROOT

pytestmark = pytest.mark.full

PROGRAM = ROOT / ".ci" / "run_tests.py"
# The `make` fails with the tests that a file lists for each run: `1` for the first, `2` for the second.
MAKE = """#!/bin/sh
echo "$@" >> asked
run=$(wc -l < asked)
mkdir -p .pytest_cache/v/cache
[ ! -e crashed ] || { mkdir -p .pytest_cache/v/tests && mv crashed .pytest_cache/v/tests/crashed; }
if [ -e "$run" ]; then cp "$run" .pytest_cache/v/cache/lastfailed; echo "=== failed in run $run ==="; exit 2; fi
echo '{}' > .pytest_cache/v/cache/lastfailed
echo "=== passed in run $run ==="
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o700)
    return tmp_path


def run(folder: Path) -> tuple[int, list[str], list[str]]:
    """Returns the exit code, the printed lines, and the arguments of `make`."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines(), (folder / "asked").read_text().splitlines()


def test_a_run_without_a_failure_is_not_repeated(folder: Path) -> None:
    code, printed, asked = run(folder)
    assert (code, len(asked)) == (0, 1)
    assert printed == ["=== passed in run 1 ===", "no test needed a repeat"]


def test_each_test_that_needed_a_repeat_is_named_after_the_last_summary(folder: Path) -> None:
    # A failure of an earlier run in the same folder must not be reported.
    old = folder / ".pytest_cache" / "v" / "cache" / "lastfailed"
    old.parent.mkdir(parents=True)
    old.write_text('{"tests/test_old.py::test_a": true}')
    (folder / "1").write_text('{"tests/test_b.py::test_b[x y]": true, "tests/test_a.py::test_a": true}')
    code, printed, asked = run(folder)
    assert code == 0
    assert "--last-failed" in asked[1]
    assert printed == [
        "=== failed in run 1 ===",
        "=== passed in run 2 ===",
        "needed a repeat: tests/test_a.py::test_a",
        "needed a repeat: tests/test_b.py::test_b[x y]",
    ]


def test_a_test_that_fails_twice_fails_the_run(folder: Path) -> None:
    (folder / "1").write_text('{"tests/test_a.py::test_a": true, "tests/test_a.py::test_b": true}')
    (folder / "2").write_text('{"tests/test_a.py::test_b": true}')
    code, printed, _ = run(folder)
    assert code == 2
    assert printed[-2:] == [
        "needed a repeat: tests/test_a.py::test_a",
        "failed twice: tests/test_a.py::test_b",
    ]


def test_a_crash_fails_the_run_even_if_the_repeat_passes(folder: Path) -> None:
    (folder / "1").write_text('{"tests/test_a.py::test_a": true}')
    (folder / "crashed").write_text('["tests/test_a.py::test_a"]')
    code, printed, _ = run(folder)
    assert code == 1
    assert printed[-2:] == [
        "needed a repeat: tests/test_a.py::test_a",
        "a process crashed, and tests after it may not have run: tests/test_a.py::test_a",
    ]


def test_a_run_that_fails_without_a_failed_test_stays_failed(folder: Path) -> None:
    (folder / "1").write_text("{}")
    (folder / "2").write_text("{}")
    code, printed, _ = run(folder)
    assert code == 2
    assert printed[-1] == "no test needed a repeat"
