"""Programs of others that tests of the tier `system` need; without one its tests are skipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def program(name: str) -> Path:
    """The path of a program, on the PATH or next to this interpreter. Skips the test where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip(f"needs {name}")
    return Path(found)
