"""Runs the tests, then repeats the failed ones on their own.

A fault fails again, and fails the run. A test that passes when it is repeated does not fail the run, but it is also a
fault of the test or of the product: each is named at the end, so that it does not have to be searched for in the
output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# pytest's list of the tests that failed in the last run.
FAILED = Path(".pytest_cache/v/cache/lastfailed")
# The tests in which processes crashed, as written by tests/hang_and_leak.py.
CRASHED = Path(".pytest_cache/v/tests/crashed")
TIERS = ("make", "test", "test-all")
# Includes the tests of the tier `system`, which are skipped if a program is missing. The last `-m` is the one that
# counts.
_ALL = "-m 'not soak'"
# Lists the slowest tests, so that a test that has become slower is noticed.
FIRST = (*TIERS, f"ARGS={_ALL} --durations=25")
ONCE_MORE = (*TIERS, "PARALLEL=", f"ARGS={_ALL} --last-failed --last-failed-no-failures=none")


def named(file: Path) -> list[str]:
    """Returns the tests that the last run recorded in a file."""
    return sorted(set(json.loads(file.read_text("utf-8")))) if file.exists() else []


def main() -> int:
    # Delete the records of an earlier run in the same folder.
    for file in (FAILED, CRASHED):
        file.unlink(missing_ok=True)
    code = subprocess.run(FIRST, check=False).returncode
    crashed, repeated = named(CRASHED), named(FAILED) if code else []
    if code:
        code = subprocess.run(ONCE_MORE, check=False).returncode
    twice = set(named(FAILED)) if code else set()
    for name in repeated:
        print(f"{'failed twice' if name in twice else 'needed a repeat'}: {name}")
    if not repeated:
        print("no test needed a repeat")
    for name in crashed:
        print(f"a process crashed, and tests after it may not have run: {name}")
    return code or bool(crashed)


if __name__ == "__main__":
    sys.exit(main())
