"""Runs the tests, and once more, by themselves, those that failed beside others.

A fault fails again and fails the run. A test that passes when it is repeated does not, but it is a fault of the test or
of the product as well: each is named at the end, so that nobody has to search the output for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Which tests of the last run failed, as pytest keeps it.
FAILED = Path(".pytest_cache/v/cache/lastfailed")
# In which tests processes crashed, as tests/endings.py leaves it there.
CRASHED = Path(".pytest_cache/v/tests/crashed")
TIERS = ("make", "test", "test-all")
# Those of the tier `system`, too, which are skipped for want of a program. The last `-m` is the one that counts.
_ALL = "-m 'not soak'"
# Which tests took longest is told, so that one that takes longer than before is seen.
FIRST = (*TIERS, f"ARGS={_ALL} --durations=25")
ONCE_MORE = (*TIERS, "PARALLEL=", f"ARGS={_ALL} --last-failed --last-failed-no-failures=none")


def named(file: Path) -> list[str]:
    """The tests that the last run left in a file."""
    return sorted(set(json.loads(file.read_text("utf-8")))) if file.exists() else []


def main() -> int:
    # Of an earlier run in the same folder.
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
