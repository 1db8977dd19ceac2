"""The command, as the client's tests run it."""

from __future__ import annotations

from tests.client.conftest import pilothouse

__all__ = ["pilothouse"]
