"""Captures the log of a server in its own format, in the tests' process, and undoes the set-up afterwards."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from pilothouse_server.runtime import log_lines


@contextmanager
def logging_as_served(level: str, log_format: str) -> Iterator[io.StringIO]:
    """Sets logging up as a server does; the yielded text collects its lines."""
    root, written = logging.getLogger(), io.StringIO()
    before, handlers, root_level = structlog.get_config(), list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in log_lines.QUIET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        log_lines.configure(level, log_format)
        yield written
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(root_level)
    # Otherwise later tests that expect log lines of libraries would not find them.
    for name, its_own in levels.items():
        logging.getLogger(name).setLevel(its_own)
