"""The end of a hanging test, and the leftovers of tests.

A test that fails or hangs ends within a minute, with its fixtures. A test that legitimately takes longer belongs to a
heavy tier and says how long it may take: `@pytest.mark.full(minutes=5)`; a test of the soak has two hours. These
limits hold at the usual patience and below, on a machine that does nothing else: a greater `PILOTHOUSE_TEST_PATIENCE`
makes them longer, and so does a machine that has more to do than a run of the tests gives it. A fixture that several
tests share has a limit of its own, and the time of the test that happens to be the first starts over after it.

A test that reaches its limit (pytest-timeout sets the alarm) is ended in order. Its waiting tasks on the event loop
are cancelled, so that its `finally` and its fixtures stop the servers and processes they started; the report shows
where each thread and task stood. A test that continues is failed where it stands some seconds later. A test that
cannot be interrupted ends with its process a minute later (faulthandler), and the processes that it started end with
that. The waits of `tests.waiting` end before the limit, so that most failures name the missing condition.

At the end of a run no process may be left of those that tests started: each one is named, killed, and fails the run.

pytest still ignores signals that were ignored when it was started (`nohup make test &` ignores SIGINT), but programs
that tests start do not: a program under test gets the dispositions that it would have from a shell.
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

# At the usual patience a minute is a minute.
_SCALE = max(1.0, PATIENCE / 6.0)
# So many processes that want to run a run of the tests gives to each core (`PARALLEL` in the Makefile).
_USUAL_LOAD = 3.0
# A whole test, and one of the soak.
_MINUTES, _SOAK_MINUTES = 1.0, 120.0
# A fixture of the whole run: one process migrates the database, the others wait for it.
_SHARED_MINUTES = {"session": 5.0}
# Within a test's minutes: what it takes to end when it is told to, first by a cancellation, then by a failure where it
# stands; then the same for its fixtures.
_GRACE_SECONDS = 5.0 * _SCALE
_ENDING_SECONDS = 3 * _GRACE_SECONDS
_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
_PR_SET_CHILD_SUBREAPER = 36
_HUNG, _FAILED = pytest.StashKey[str](), pytest.StashKey[bool]()
_SECONDS, _OF_TIER = pytest.StashKey[float](), pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Prepares for the processes of tests: default signals, and a way to find orphans among them."""
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            # A handler is not inherited by the programs that are started, as SIG_IGN is.
            signal.signal(number, lambda *_: None)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def _timeout(seconds: float) -> pytest.MarkDecorator:
    """The mark of the alarm after so many seconds."""
    return pytest.mark.timeout(seconds)


def _seconds(minutes: float) -> float:
    """Returns when the alarm comes for a test that may take so many minutes with its end."""
    return minutes * 60.0 * _SCALE - _ENDING_SECONDS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test the time of its tier, or of its own mark."""
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
    """Sets the alarm of a test; the implementation of pytest-timeout's hook."""
    item.stash[_SECONDS] = settings.timeout * (_overload() if _OF_TIER in item.stash else 1.0)
    _running[:] = [item]
    _set_alarm(item, item.stash[_SECONDS])
    return True


def _overload() -> float:
    """How many times as long everything takes as in a run of the tests that has its cores for itself; at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)) / _USUAL_LOAD)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Gives a fixture that several tests share a time of its own, and then the test its own from the beginning."""
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
    """Sets the alarm again for the end of the fixtures: pytest-timeout takes it back when a test has failed."""
    if _SECONDS in item.stash:
        ends_badly = _HUNG in item.stash or _FAILED in item.stash
        _set_alarm(item, _GRACE_SECONDS * _overload() if ends_badly else item.stash[_SECONDS])
    return (yield)


def _set_alarm(item: pytest.Item, seconds: float) -> None:
    """Ends the test in order when so many seconds are over, then where it stands, then with its process."""
    set_limit(seconds - _GRACE_SECONDS if seconds > 2 * _GRACE_SECONDS else seconds)

    def alarm(_number: int, frame: FrameType | None) -> None:
        first = _HUNG not in item.stash
        if first:
            item.stash[_HUNG] = f"hung: it took longer than {seconds:g} s\n{_stacks()}"
        signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)
        waited_for = _waited_for(frame)
        if first and waited_for is not None:
            # The loop may be in the middle of its selector, which this wakes.
            waited_for.get_loop().call_soon_threadsafe(waited_for.cancel)
        else:
            pytest.fail(item.stash[_HUNG], pytrace=False)

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Seldom, and late: a process that ends takes what its other tests share along, and xdist may not get over it.
    faulthandler.dump_traceback_later(seconds + 12 * _GRACE_SECONDS, exit=True, file=2)


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Takes the alarm back."""
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
    """Where each thread and each task is."""
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
    """Fails a test that hung, also if it took its cancellation for something else and continued."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if _HUNG in item.stash:
        report.sections.append(("Hung", item.stash[_HUNG]))
        if report.passed:
            report.outcome, report.longrepr = "failed", item.stash[_HUNG]
    return report


def _kill_what_is_left() -> list[str]:
    """Kills the processes that are left of those that tests started; their command lines."""
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
    """Looks for leftovers once all fixtures are done, and the processes have ended that run tests for this one."""
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


# The test that runs, while its alarm is set.
_running: list[pytest.Item] = []
_left: list[str] = []
# The key in pytest's cache of the last run that `.ci/run_tests.py` reads.
CRASHED = "tests/crashed"
_crashed: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str) -> None:
    """Notes the test in which a process crashed that ran tests for this one: others of its may never have run."""
    _crashed.append(crashitem)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over the findings of a process that ran tests for this one."""
    _left.extend(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the leftovers."""
    for line in _left:
        terminalreporter.write_line(f"left running by a test, and killed: {line}", red=True)
