"""How a test ends that hangs, and what is left of what tests started.

A test that takes longer than its tier allows (pytest-timeout sets the alarm) is ended in order. What waits on the event
loop is cancelled, so that its `finally` and its fixtures stop the servers and processes they started; the report
shows where each thread and task stood. What goes on all the same is failed where it stands once a while is over. What
cannot even be interrupted ends with its process (faulthandler), and the processes it started end with that.

At the end of a run no process may be left of those that tests started: what is left is named, killed, and fails it.

Signals that were ignored when pytest was started (`nohup make test &` ignores SIGINT) are ignored by pytest still, but
no longer by what the tests start: a program under test gets the dispositions that it would have from a shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from types import FrameType
from typing import Any

import psutil
import pytest

from tests.tiers import SOAK
from tests.waiting import patient

# Of one test with its fixtures, on a quiet machine; and of what it does when it is told to end.
LIMIT_SECONDS, SOAK_LIMIT_SECONDS, WINDING_UP_SECONDS = 100.0, 1200.0, 10.0
_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
_PR_SET_CHILD_SUBREAPER = 36
_HUNG, _SECONDS = pytest.StashKey[str](), pytest.StashKey[float]()


def pytest_configure() -> None:
    """Prepares for what tests start: default signals, and that orphans among it are found."""
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            # A handler is not inherited by the programs that are started, as SIG_IGN is.
            signal.signal(number, lambda *_: None)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test the time of its tier."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            seconds = SOAK_LIMIT_SECONDS if item.get_closest_marker(SOAK) else LIMIT_SECONDS
            item.add_marker(pytest.mark.timeout(patient(seconds)))


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Sets the alarm of a test; the implementation of pytest-timeout's hook."""
    item.stash[_SECONDS] = settings.timeout
    _set_alarm(item, settings.timeout)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Sets it anew for the end of the fixtures: pytest-timeout takes it back when a test has failed."""
    if _SECONDS in item.stash:
        _set_alarm(item, patient(WINDING_UP_SECONDS) if _HUNG in item.stash else item.stash[_SECONDS])
    return (yield)


def _set_alarm(item: pytest.Item, seconds: float) -> None:
    """Ends the test in order when so many seconds are over, then where it stands, then with its process."""
    grace = patient(WINDING_UP_SECONDS)

    def alarm(_number: int, frame: FrameType | None) -> None:
        first = _HUNG not in item.stash
        if first:
            item.stash[_HUNG] = f"hung: it took longer than {seconds:g} s\n{_stacks()}"
        signal.setitimer(signal.ITIMER_REAL, grace)
        waited_for = _waited_for(frame)
        if first and waited_for is not None:
            # The loop may be in the middle of its selector, which this wakes.
            waited_for.get_loop().call_soon_threadsafe(waited_for.cancel)
        else:
            pytest.fail(item.stash[_HUNG], pytrace=False)

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + 4 * grace, exit=True, file=2)


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Takes the alarm back."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    return True


def _waited_for(frame: FrameType | None) -> asyncio.Future[Any] | None:
    """What the innermost event loop runs until it is complete."""
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
    """Fails what hung, also where it took its cancellation for something else and went on."""
    report = yield
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
    psutil.wait_procs(left, timeout=patient(WINDING_UP_SECONDS))
    return named


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Looks for what is left once all fixtures are done, and the processes have ended that run tests for this one."""
    result = yield
    _left.extend(_kill_what_is_left())
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = _left
    elif _left:
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    return result


_left: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a process that ran tests for this one has found."""
    _left.extend(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what was left."""
    for line in _left:
        terminalreporter.write_line(f"left running by a test, and killed: {line}", red=True)
