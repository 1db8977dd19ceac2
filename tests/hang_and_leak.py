"""Ends tests that hang, and reports processes that tests leave running.

A test that fails or hangs ends within a minute, with its fixtures. A test that legitimately takes longer belongs to a
heavy tier and declares its limit: `@pytest.mark.full(minutes=5)`; a soak test has two hours. These limits apply at
the default patience and below, on a machine that does nothing else: a greater `PILOTHOUSE_TEST_PATIENCE` extends
them, and so does a machine that has more load than a run of the tests causes. A fixture that several tests share has
a limit of its own; the time of the test that happens to be the first starts over after it.

A test that reaches its limit (pytest-timeout calls the hook that sets the alarm) is ended in order. The alarm cancels
the task that the event loop is running, so that its `finally` blocks and its fixtures stop the servers and processes
they started; the report shows the stack of each thread and task. A test that continues is failed at its current line
some seconds later. A test that cannot be interrupted ends a minute later together with its process (faulthandler),
and so do the processes that it started. The waits of `tests.waiting` end before the limit, so that most failures name
the missing condition.

At the end of a run, no process that a test started may be left: each one is named and killed, and fails the run.

pytest still ignores signals that were ignored when it was started (`nohup make test &` ignores SIGINT), but programs
that tests start do not: they get the signal dispositions that a shell would give them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import functools
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from types import FrameType
from typing import Any

import psutil
import pytest

from tests.tiers import FULL, SOAK, SYSTEM
from tests.waiting import PATIENCE, set_limit

# The factor of all limits: 1 at the default patience.
_SCALE = max(1.0, PATIENCE / 6.0)
# The number of runnable processes per core during a run of the tests (`PARALLEL` in the Makefile).
_USUAL_LOAD = 3.0
# The limits of a whole test and of a soak test, in minutes.
_MINUTES, _SOAK_MINUTES = 1.0, 120.0
# The limit of a fixture of the whole run: one process migrates the database, and the others wait for it.
_SHARED_MINUTES = {"session": 5.0}
# The part of a test's minutes that is reserved for its end: first a cancellation, then a failure at its current line,
# then the same for its fixtures.
_GRACE_SECONDS = 5.0 * _SCALE
_ENDING_SECONDS = 3 * _GRACE_SECONDS
_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
_PR_SET_CHILD_SUBREAPER = 36
_HUNG, _FAILED = pytest.StashKey[str](), pytest.StashKey[bool]()
_SECONDS, _OF_TIER = pytest.StashKey[float](), pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Prepares for the processes of tests: sets default signals, and makes this process adopt their orphans."""
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            # Unlike SIG_IGN, a handler is not inherited by the programs that are started.
            signal.signal(number, lambda *_: None)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def _timeout(seconds: float) -> pytest.MarkDecorator:
    """Returns the mark that sets the alarm to `seconds`."""
    return pytest.mark.timeout(seconds)


def _seconds(minutes: float) -> float:
    """Returns the seconds until the alarm of a test that may take `minutes` including its end."""
    return minutes * 60.0 * _SCALE - _ENDING_SECONDS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test the limit of its tier, or of its own mark."""
    for item in items:
        markers = {marker.name: marker for marker in reversed(list(item.iter_markers()))}
        if "timeout" not in markers:
            of_tier = [
                markers[tier].kwargs.get("minutes", _MINUTES) for tier in (FULL, SYSTEM) if tier in markers
            ]
            minutes = max(of_tier, default=_SOAK_MINUTES if SOAK in markers else _MINUTES)
            item.add_marker(_timeout(_seconds(minutes)))
            item.stash[_OF_TIER] = True


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Sets the alarm of a test (implements pytest-timeout's hook)."""
    item.stash[_SECONDS] = settings.timeout * (_overload() if _OF_TIER in item.stash else 1.0)
    _running[:] = [item]
    _set_alarm(item, item.stash[_SECONDS])
    return True


def _overload() -> float:
    """Returns how many times slower this machine is than one that only runs the tests; at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)) / _USUAL_LOAD)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Gives a fixture that several tests share its own limit, then restarts the test's time."""
    items = [] if fixturedef.scope == "function" else _running
    for item in items:
        minutes = _SHARED_MINUTES.get(fixturedef.scope, _MINUTES)
        _set_alarm(item, max(_seconds(minutes) * _overload(), item.stash[_SECONDS]))
    try:
        return (yield)
    finally:
        for item in items:
            if _HUNG not in item.stash:
                _set_alarm(item, item.stash[_SECONDS])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Sets the alarm again for the end of the fixtures: pytest-timeout cancels it when a test has failed."""
    if _SECONDS in item.stash:
        ends_badly = _HUNG in item.stash or _FAILED in item.stash
        _set_alarm(item, _GRACE_SECONDS * _overload() if ends_badly else item.stash[_SECONDS])
    return (yield)


def _set_alarm(item: pytest.Item, seconds: float) -> None:
    """Ends the test in order after `seconds`, then fails it at its current line, then ends its process."""
    set_limit(seconds - _GRACE_SECONDS if seconds > 2 * _GRACE_SECONDS else seconds)

    def alarm(_number: int, frame: FrameType | None) -> None:
        first = _HUNG not in item.stash
        if first:
            item.stash[_HUNG] = f"hung: it took longer than {seconds:g} s\n{_stacks()}"
        signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)
        waited_for = _waited_for(frame)
        if first and waited_for is not None:
            # The loop may be waiting in its selector; `call_soon_threadsafe` wakes it.
            waited_for.get_loop().call_soon_threadsafe(waited_for.cancel)
        else:
            pytest.fail(item.stash[_HUNG], pytrace=False)

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Rare, and late: the end of the process also ends the fixtures of its other tests, and xdist may not recover.
    faulthandler.dump_traceback_later(seconds + 12 * _GRACE_SECONDS, exit=True, file=2)


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Cancels the alarm."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _running.clear()
    set_limit(math.inf)
    faulthandler.cancel_dump_traceback_later()
    return True


def _waited_for(frame: FrameType | None) -> asyncio.Future[Any] | None:
    """Returns the future that the innermost event loop runs to completion."""
    while frame is not None:
        if frame.f_code is asyncio.BaseEventLoop.run_until_complete.__code__:
            found = frame.f_locals.get("future")
            return found if isinstance(found, asyncio.Future) else None
        frame = frame.f_back
    return None


def _stacks() -> str:
    """Returns the stack of each thread and each task."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    ]
    with contextlib.suppress(RuntimeError):
        for task in asyncio.all_tasks():
            lines = [f"  {frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack()]
            parts.append("\n".join([f"task {task.get_name()}: {task.get_coro()}", *lines]))
    return "\n".join(parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that hung, even if it caught its cancellation and continued."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if _HUNG in item.stash:
        report.sections.append(("Hung", item.stash[_HUNG]))
        if report.passed:
            report.outcome, report.longrepr = "failed", item.stash[_HUNG]
    return report


def _kill_what_is_left() -> list[str]:
    """Kills the remaining processes that tests started, and returns their command lines."""
    left = psutil.Process().children(recursive=True)
    named = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            named.append(" ".join(process.cmdline()) or process.name())
            process.kill()
    longest = 2 * _GRACE_SECONDS
    psutil.wait_procs(left, timeout=longest)
    return named


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Searches for leftover processes after all fixtures and all worker processes have ended."""
    result = yield
    _left.extend(_kill_what_is_left())
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workeroutput"):
        cache.set(CRASHED, _crashed)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = _left
    elif _left:
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    return result


# The test that is running, while its alarm is set.
_running: list[pytest.Item] = []
_left: list[str] = []
# The key in pytest's cache of the last run that `.ci/run_tests.py` reads.
CRASHED = "tests/crashed"
_crashed: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str) -> None:
    """Records the test in which a worker process crashed: the other tests of that worker may never have run."""
    _crashed.append(crashitem)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collects the findings of a worker process."""
    _left.extend(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the leftover processes."""
    for line in _left:
        terminalreporter.write_line(f"left running by a test, and killed: {line}", red=True)
