"""The three tiers of tests, and what is told of skipped ones.

`make test` runs what bears no marker, `make test-all` what is marked `full`, `make soak PART=…` what is marked
`soak(part=…)`. A test of the tier `full` may need a program that a machine lacks: it is skipped there. In CI, where
`.ci/run` installs those programs, a skipped test would be one that nobody runs: it fails the run.

Of a heavy tier only the files are imported that name its marker, about a fourth: each process of a run would import all
the others for nothing. A marker that comes from elsewhere is refused by whoever reads all files, as `make test` does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

FULL = "full"
SOAK = "soak"


@functools.cache
def _names(path: Path, tier: str) -> bool:
    """Whether a file has the marker of the tier in its own text."""
    return f"pytest.mark.{tier}" in path.read_text(encoding="utf-8")


def has_nothing(path: Path, config: pytest.Config) -> bool:
    """Whether a file of tests has nothing of the heavy tier that alone is asked for."""
    chosen = config.option.markexpr
    tier = FULL if chosen == FULL else SOAK if chosen.startswith(f"{SOAK}(") else ""
    return bool(tier) and path.match("test_*.py") and not _names(path, tier)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out such files."""
    return True if has_nothing(collection_path, config) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuses what a heavy tier would never run: without its marker in the file, or of the soak and of no part."""
    for item in items:
        for tier in (FULL, SOAK):
            if item.get_closest_marker(tier) and not _names(item.path, tier):
                raise pytest.UsageError(f"{item.nodeid}: write pytest.mark.{tier} in the file itself")
        for marker in item.iter_markers(SOAK):
            if set(marker.kwargs) != {"part"} or marker.args:
                raise pytest.UsageError(f'{item.nodeid}: write pytest.mark.soak(part="…")')


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers what was skipped; of each process's reports all come to the one that prints."""
    if report.skipped and FULL in report.keywords and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


_skipped: list[str] = []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI that skipped a test of the tier `full`."""
    if _skipped and os.environ.get("CI") == "true" and not hasattr(session.config, "workerinput"):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what a skipped test of the tier `full` means."""
    if _skipped:
        verdict = "in CI that is a failure" if os.environ.get("CI") == "true" else "CI fails on that"
        terminalreporter.write_line(f"{len(_skipped)} skipped of the tier `{FULL}`: {verdict}", red=True)
