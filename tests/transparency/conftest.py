"""The Go program that verifies the product's exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.transparency import go


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def verify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the built program."""
    return await go.build(Path(__file__).parent / "others/main.go", tmp_path_factory.mktemp("go"))
