"""Provides the `pilothouse` command fixture of the client's tests."""

from __future__ import annotations

from functools import partial

import pytest

from pilothouse_client import handshake
from tests.client.conftest import pilothouse
from tests.waiting import patient

__all__ = ["pilothouse"]


@pytest.fixture(autouse=True)
def patient_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the client find the problem of a connection also when the server takes long for a handshake."""
    monkeypatch.setattr(handshake, "find_problem", partial(handshake.find_problem, seconds=patient(2.0)))
