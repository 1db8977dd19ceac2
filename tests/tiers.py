"""The four tiers of tests, and the report of skipped ones.

`make test` runs the tests without a marker, `make test-all` those marked `full`, `make test-system` those marked
`system`, `make soak PART=…` those marked `soak(part=…)`. A test of the tiers `full` and `system` may need a program
that a machine lacks: it is skipped there. `.ci/run` installs the programs of the tier `full`, so in CI a skipped test
of that tier fails the run. The programs of the tier `system` are heavy; one line names those that are missing.

Of a heavy tier only the files are imported that name its marker, about a fourth: each process of a run would import all
the others for nothing. Likewise `make test` leaves out a file whose tests all have one marker of a heavy tier. It
refuses a marker that comes from elsewhere.
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
# The expression for tests without a marker, in pyproject.toml.
_OF_EVERY_CHANGE = f"not {FULL} and not {SYSTEM} and not {SOAK}"
_OF_THE_FILE = re.compile(rf"^pytestmark = pytest\.mark\.({FULL}|{SYSTEM}|{SOAK})\b", re.MULTILINE)


@functools.cache
def _names(path: Path, tier: str) -> bool:
    """Whether a file has the marker of the tier in its own text."""
    return f"pytest.mark.{tier}" in path.read_text(encoding="utf-8")


@functools.cache
def _is_heavy(path: Path) -> bool:
    """Whether a file gives all its tests one marker of a heavy tier."""
    return bool(_OF_THE_FILE.search(path.read_text(encoding="utf-8")))


def has_nothing(path: Path, config: pytest.Config) -> bool:
    """Whether a file of tests has nothing of the tier that alone is asked for."""
    chosen = config.option.markexpr
    if chosen == _OF_EVERY_CHANGE:
        return path.match("test_*.py") and _is_heavy(path)
    tier = SOAK if chosen.startswith(f"{SOAK}(") else chosen if chosen in (FULL, SYSTEM) else ""
    return bool(tier) and path.match("test_*.py") and not _names(path, tier)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out such files."""
    return True if has_nothing(collection_path, config) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuses tests that a heavy tier would never run: without its marker in the file, or of the soak and of no
    part.
    """
    for item in items:
        for marker in item.iter_markers():
            if marker.name in _TIERS and not _names(item.path, marker.name):
                raise pytest.UsageError(f"{item.nodeid}: write pytest.mark.{marker.name} in the file itself")
            if marker.name == SOAK and (set(marker.kwargs) != {"part"} or marker.args):
                raise pytest.UsageError(f'{item.nodeid}: write pytest.mark.soak(part="…")')


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers the skipped tests; the reports of all processes come to the one that prints."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    if FULL in report.keywords:
        _skipped.append(report.nodeid)
    if SYSTEM in report.keywords and isinstance(report.longrepr, tuple):
        _lacking.add(report.longrepr[2].removeprefix("Skipped: "))


_skipped: list[str] = []
# Why tests of the tier `system` were skipped.
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
