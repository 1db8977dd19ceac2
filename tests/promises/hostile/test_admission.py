"""Promise 13: whoever holds, or asks for, as much as can be had takes nothing from the others.

How long calls of others take is measured once the attack stands: 2,100 calls that begin in one moment take any server
of grpc.aio 0.2 to 0.9 s, and none can put them off. That nobody fails counts from the first moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.ground import Ground
from tests.promises.hostile.ground import ground as made_ground

_ATTACKS = "tests.promises.hostile.holding_attacks"
_SABOTAGE = "tests.promises.hostile.admission_sabotage"
_HELD = 2_100
pytestmark = pytest.mark.soak(part="hostile")


def holding(made: Ground, kind: str, count: int, **order: Any) -> Any:
    """That many calls of a kind at a time, begun again when the server ends them."""
    return attacking(_ATTACKS, "held", address=made.address, count=count, options={"kind": kind}, **order)


@pytest.mark.parametrize("kind", ["watches of health", "reflections", "log-ins without a request"])
async def test_strangers_hold_what_they_can(ground: Ground, kind: str) -> None:
    verdict = await ground.attacked(lambda: holding(ground, kind, _HELD), pairs=3, standing=True)
    assert verdict.faults() == []
    assert all(report["begun"] >= _HELD for report in verdict.reports), verdict.reports


@pytest.mark.parametrize(
    ("kind", "count"),
    [("calls without a request", _HELD), ("watches", _HELD), ("wide pages", 20), ("large requests", 32)],
)
async def test_a_user_holds_what_there_is(ground: Ground, kind: str, count: int) -> None:
    # Who may not create is refused before what is asked for is looked at.
    role = "developer" if kind == "large requests" else "viewer"
    token = await ground.user("attacker", role, "own-1")
    verdict = await ground.attacked(
        lambda: holding(ground, kind, count, token=token, namespace="own-1"),
        pairs=3,
        # Twenty calls begin at once without being felt.
        standing=count == _HELD,
    )
    # Each call of a user has a record of its own, however many there are.
    assert [fault for fault in verdict.faults() if not fault.startswith("the log")] == []
    assert all(report["begun"] >= count for report in verdict.reports), verdict.reports


async def test_a_cluster_hangs(ground: Ground) -> None:
    token = await ground.user("attacker", "developer", "own-1")
    ground.cluster.faults.latency_seconds = 30.0
    verdict = await ground.attacked(
        lambda: holding(ground, "dry runs", 120, token=token, namespace="own-1"), pairs=3
    )
    ground.cluster.faults.clear()
    assert [fault for fault in verdict.faults() if not fault.startswith("the log")] == []
    assert all(report["begun"] >= 120 for report in verdict.reports), verdict.reports


async def test_one_number_for_all_calls_is_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} one_number_for_all") as made:
        verdict = await made.attacked(lambda: holding(made, "watches of health", _HELD), pairs=1)
    assert any("RESOURCE_EXHAUSTED" in fault for fault in verdict.faults()), verdict.faults()
    assert any(fault.startswith("health failed") for fault in verdict.faults()), verdict.faults()


async def test_wide_pages_side_by_side_are_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} wide_pages_side_by_side") as made:
        token = await made.user("attacker", "viewer", "own-1")
        verdict = await made.attacked(
            lambda: holding(made, "wide pages", 20, token=token, namespace="own-1"), pairs=1
        )
    assert any(fault.startswith("the p99 rose") for fault in verdict.faults()), verdict.ratios


async def test_large_requests_side_by_side_are_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} large_requests_side_by_side") as made:
        token = await made.user("attacker", "developer", "own-1")
        verdict = await made.attacked(
            lambda: holding(made, "large requests", 32, token=token, namespace="own-1"), pairs=1
        )
    assert any(fault.startswith("the p99 rose") for fault in verdict.faults()), verdict.ratios
