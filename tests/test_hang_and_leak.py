"""A test that hangs is ended in order, and nothing that tests start outlives the run."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.hang_and_leak import CRASHED
from tests.nested import ROOT, pytest_run

# Each test starts a whole run of pytest.
pytestmark = pytest.mark.full(minutes=5)

HASTY = {"PILOTHOUSE_TEST_PATIENCE": "0.1"}
BEGINNING = """
import asyncio, pathlib, signal, subprocess, sys, time
import pytest

HERE = pathlib.Path(__file__).parent

@pytest.fixture
async def program():
    process = await asyncio.create_subprocess_exec("sleep", "86399")
    (HERE / "started").touch()
    yield process
    process.kill()
    await process.wait()
    with (HERE / "ended").open("a") as file:
        file.write("ended")
"""
HANGS = """
@pytest.mark.timeout(1)
async def test_hangs(program):
    await asyncio.Event().wait()

async def test_goes_on():
    pass
"""
STUBBORN = """
@pytest.mark.timeout(1)
async def test_hangs(program):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""
TAKES_NO_NOTICE = """
@pytest.mark.timeout(1)
async def test_passes_nevertheless(program):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass
"""
BUSY = """
@pytest.mark.timeout(1)
def test_hangs(program):
    while True:
        time.sleep(0.01)
"""
NOT_TO_BE_INTERRUPTED = """
@pytest.mark.timeout(1)
def test_hangs(program):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        time.sleep(0.01)
"""
LEAVES_A_GRANDCHILD = """
def test_leaves():
    subprocess.run("sleep 86398 & :", shell=True, check=True)
"""
STARTS = """
def test_starts():
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True).stdout == "True\\n"
"""
CRASHES = """
import os

def test_crashes():
    os._exit(1)

def test_goes_on():
    pass
"""
WAITS_IN_VAIN = """
from tests.waiting import poll_until

async def test_waits(program):
    async def never(): return False
    await poll_until(never, seconds=1000.0, what="the end")

async def test_goes_on():
    pass
"""
SHARES = """
import tests.hang_and_leak as endings
endings._SHARED_MINUTES["module"] = 2.0

@pytest.fixture(scope="module")
def shared():
    time.sleep(2.0)

@pytest.mark.timeout(1.5)
def test_has_its_own_time_after_what_is_shared(shared):
    time.sleep(0.1)
"""
BOTH_WAYS = pytest.mark.parametrize(
    "options", [(), ("--numprocesses", "1")], ids=["alone", "by another process"]
)


def running(*words: str) -> list[int]:
    return [
        process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == [*words]
    ]


@BOTH_WAYS
def test_hanging_tests_fail_and_their_fixtures_end_their_programs(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + HANGS + TAKES_NO_NOTICE, *options)
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "2 failed, 1 passed" in printed
    assert printed.count("hung: it took longer than 1 s") >= 2
    for name in ("test_hangs", "test_passes_nevertheless"):
        assert name in printed.partition("task ")[2]
    assert (tmp_path / "ended").read_text() == "ended" * 2
    assert "left running" not in printed


def test_a_failed_wait_ends_before_the_alarm_with_its_own_message(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + WAITS_IN_VAIN)
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "1 failed, 1 passed" in printed
    assert "the end did not come true within" in printed
    assert "hung" not in printed
    assert (tmp_path / "ended").exists()


def test_a_shared_fixture_has_a_time_limit_of_its_own(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + SHARES)
    assert code == 0, printed


def test_a_test_has_a_minute_unless_its_mark_allows_more(tmp_path: Path) -> None:
    text = "".join(
        f"""
{mark}
def test_limit_{number}(request):
    assert request.node.get_closest_marker("timeout").args == ({seconds},)
"""
        for number, (mark, seconds) in enumerate(
            [("", 45.0), ("@pytest.mark.full", 45.0), ("@pytest.mark.full(minutes=5)", 285.0)]
        )
    )
    for patience in ("1", "6"):
        code, printed = pytest_run(
            tmp_path, BEGINNING + text, variables={"PILOTHOUSE_TEST_PATIENCE": patience}
        )
        assert code == 0, printed
        assert "3 passed" in printed


@pytest.mark.parametrize("text", [STUBBORN, BUSY], ids=["it goes on", "it is busy"])
def test_a_test_that_cannot_be_cancelled_fails_at_its_current_line(tmp_path: Path, text: str) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + text, variables=HASTY)
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "hung: it took longer than 1 s" in printed
    assert (tmp_path / "ended").exists()


def test_a_test_that_cannot_be_interrupted_ends_with_its_process(tmp_path: Path) -> None:
    code, printed = pytest_run(
        tmp_path, BEGINNING + NOT_TO_BE_INTERRUPTED, "--numprocesses", "1", variables=HASTY
    )
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "crashed while running" in printed
    assert (tmp_path / "started").exists()
    assert "left running by a test, and killed: sleep 86399" in printed


def test_a_test_that_crashes_each_process_ends_the_run_and_is_recorded(tmp_path: Path) -> None:
    for name in ("test_a.py", "test_b.py", "test_c.py"):
        (tmp_path / name).write_text("def test_a(): pass\n\ndef test_b(): pass\n")
    parallel = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("PARALLEL")
    )
    code, printed = pytest_run(tmp_path, BEGINNING + CRASHES, *parallel.partition(":= ")[2].split())
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "crashed while running" in printed
    crashed = json.loads((tmp_path / ".pytest_cache" / "v" / CRASHED).read_text())
    assert set(crashed) == {"test_of_its_own.py::test_crashes"}


@BOTH_WAYS
def test_processes_that_a_test_leaves_running_are_named_and_killed(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + LEAVES_A_GRANDCHILD, *options)
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "1 passed" in printed
    assert "left running by a test, and killed: sleep 86398" in printed
    assert running("sleep", "86398") == []


@BOTH_WAYS
def test_programs_that_tests_start_do_not_inherit_ignored_signals(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    code, printed = pytest_run(tmp_path, BEGINNING + STARTS, *options, in_the_background=True)
    assert code == 0, printed
