"""The four tiers of tests, and the report of skipped ones.

`make test` runs the tests without a marker, `make test-all` those marked `full`, `make test-system` those marked
`system`, `make soak PART=…` those marked `soak(part=…)`. A test of the tiers `full` and `system` is skipped if the
machine lacks a program that it needs. `.ci/run` installs the programs of the tier `full`, so a skipped test of that
tier fails the run in CI. The programs of the tier `system` are heavy; one line names the missing ones.

A run of a heavy tier imports only the files that name its marker, about a fourth of all: otherwise each process would
import the others for nothing. Likewise, `make test` leaves out a file whose tests all have one marker of a heavy
tier. A marker that is imported from another module is refused.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

FULL = "full"
SYSTEM = "system"
SOAK = "soak"
_TIERS = frozenset({FULL, SYSTEM, SOAK})
# The marker expression of `make test`, as in pyproject.toml.
_OF_EVERY_CHANGE = f"not {FULL} and not {SYSTEM} and not {SOAK}"
_OF_THE_FILE = re.compile(rf"^pytestmark = pytest\.mark\.({FULL}|{SYSTEM}|{SOAK})\b", re.MULTILINE)


@functools.cache
def _names(path: Path, tier: str) -> bool:
    """Returns whether a file contains the marker of the tier in its own text."""
    return f"pytest.mark.{tier}" in path.read_text(encoding="utf-8")


@functools.cache
def _is_heavy(path: Path) -> bool:
    """Returns whether a file gives all its tests one marker of a heavy tier."""
    return bool(_OF_THE_FILE.search(path.read_text(encoding="utf-8")))


def has_nothing(path: Path, config: pytest.Config) -> bool:
    """Returns whether a test file contains no tests of the one tier that is selected."""
    chosen = config.option.markexpr
    if chosen == _OF_EVERY_CHANGE:
        return path.match("test_*.py") and _is_heavy(path)
    tier = SOAK if chosen.startswith(f"{SOAK}(") else chosen if chosen in (FULL, SYSTEM) else ""
    return bool(tier) and path.match("test_*.py") and not _names(path, tier)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files without tests of the selected tier."""
    return True if has_nothing(collection_path, config) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuses tests that no heavy tier would ever run.

    These are tests whose marker is not named in their own file, and soak tests without a part.
    """
    for item in items:
        for marker in item.iter_markers():
            if marker.name in _TIERS and not _names(item.path, marker.name):
                raise pytest.UsageError(f"{item.nodeid}: write pytest.mark.{marker.name} in the file itself")
            if marker.name == SOAK and (set(marker.kwargs) != {"part"} or marker.args):
                raise pytest.UsageError(f'{item.nodeid}: write pytest.mark.soak(part="…")')


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Records the skipped tests; the process that prints receives the reports of all processes."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    if FULL in report.keywords:
        _skipped.append(report.nodeid)
    if SYSTEM in report.keywords and isinstance(report.longrepr, tuple):
        _lacking.add(report.longrepr[2].removeprefix("Skipped: "))


_skipped: list[str] = []
# The reasons why tests of the tier `system` were skipped.
_lacking: set[str] = set()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI that skipped a test of the tier `full`."""
    if _skipped and os.environ.get("CI") == "true" and not hasattr(session.config, "workerinput"):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Explains a skipped test of the tier `full`."""
    if _skipped:
        verdict = "in CI that is a failure" if os.environ.get("CI") == "true" else "CI fails on that"
        terminalreporter.write_line(f"{len(_skipped)} skipped of the tier `{FULL}`: {verdict}", red=True)
    if _lacking:
        terminalreporter.write_line(f"skipped of the tier `{SYSTEM}`: {'; '.join(sorted(_lacking))}")
