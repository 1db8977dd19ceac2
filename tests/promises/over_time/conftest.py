"""The folder of the campaign's files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yields a path that is short enough for a socket.

    PostgreSQL's own account may enter it.
    """
    with tempfile.TemporaryDirectory(prefix="ph-time-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made)
