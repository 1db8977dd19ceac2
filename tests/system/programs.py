"""Programs of other projects that tests of the tier `system` need; without a program, its tests are skipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def program(name: str) -> Path:
    """Returns the path of a program, on the PATH or next to this interpreter. Skips the test if there is none."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip(f"needs {name}")
    return Path(found)
