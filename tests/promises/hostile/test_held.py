"""Promise 13: who holds more calls than a server has room for holds nobody else up, and health is always answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.ground import Ground, ground
from tests.promises.hostile.held import KINDS

pytestmark = pytest.mark.soak(part="hostile")
_COUNT = 2_100


@pytest.mark.parametrize("kind", KINDS)
async def test_held_calls(ground: Ground, kind: str) -> None:
    token = await ground.user("attacker", "viewer", "own-1")
    order = {"address": ground.address, "count": _COUNT, "token": token, "namespace": "own-1"}
    verdict = await ground.attacked(
        lambda: attacking("tests.promises.hostile.held", kind, **order), standing=True
    )
    assert verdict.faults(strangers=kind != "watches") == []
    # The server has ended those that it has no room for, and not by closing everything.
    assert all(report["begun"] == _COUNT > report["ended"] > 0 for report in verdict.reports), verdict.reports


async def test_without_a_bound_for_each_address_it_is_found(database: Database, tmp_path: Path) -> None:
    """The positive control: with room for as many as one stranger begins, what they hold is not ended."""
    unbounded = {
        "PILOTHOUSE_MAX_HEALTH_WATCHES_PER_ADDRESS": str(2 * _COUNT),
        "PILOTHOUSE_MAX_STREAMS": str(2 * _COUNT),
    }
    async with ground(database, tmp_path, variables=unbounded) as made:
        order = {"address": made.address, "count": _COUNT}
        verdict = await made.attacked(
            lambda: attacking("tests.promises.hostile.held", "health", **order), pairs=1
        )
    assert [report["ended"] for report in verdict.reports] == [0]
