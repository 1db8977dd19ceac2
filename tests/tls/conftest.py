"""Provides the `pilothouse` command fixture of the client's tests."""

from __future__ import annotations

from tests.client.conftest import pilothouse

__all__ = ["pilothouse"]
