"""The three tiers of tests, and what is told of skipped ones.

`make test` runs what bears no marker, `make test-all` what is marked `full`, `make soak PART=…` what is marked
`soak(part=…)`. A test of the tier `full` may need a program that a machine lacks: it is skipped there. In CI, where
`.ci/run` installs those programs, a skipped test would be one that nobody runs: it fails the run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

FULL = "full"
SOAK = "soak"


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuses a soak test that belongs to no part: `make soak` would never run it."""
    for item in items:
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
