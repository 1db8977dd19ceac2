"""Runs the suite on another event loop: `PILOTHOUSE_TEST_EVENT_LOOP=uvloop make test`.

Servers in the process of the tests run on it, too. Tests in virtual time have a loop of their own, and programs that
tests start run on the loop that they are configured with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Returns the loop factory (called by pytest-asyncio)."""
    return {"uvloop": uvloop.new_event_loop}
