"""Promises 9 and 13 against callers that break the manners of the transport; bystanders have addresses of their own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.ground import Ground
from tests.promises.hostile.ground import ground as made_ground

ATTACKS = "tests.promises.hostile.attacks"
_SABOTAGE = "tests.promises.hostile.admission_sabotage"
# Pairs of windows, of what is over after a moment: each has only a few calls in it.
_OF_A_MOMENT = 5
pytestmark = pytest.mark.soak(part="hostile")


@pytest.mark.parametrize(("count", "strangers"), [(2_000, False), (20_000, False), (20_000, True)])
async def test_rapid_resets(ground: Ground, count: int, strangers: bool) -> None:
    token = "" if strangers else await ground.user("somebody", "viewer", "own-1")
    verdict = await ground.attacked(
        lambda: attacking(ATTACKS, "resets", address=ground.address, count=count, token=token),
        pairs=_OF_A_MOMENT,
        warm=True,
    )
    assert verdict.faults(strangers=strangers) == []
    assert all(report["resets"] == count for report in verdict.reports), verdict.reports


async def beside_a_burst(ground: Ground, *, pairs: int = _OF_A_MOMENT) -> list[str]:
    """Returns the bystanders' faults while a user makes 2,000 calls in one moment."""
    token = await ground.user("somebody", "viewer", "own-1")
    verdict = await ground.attacked(
        lambda: attacking(ATTACKS, "calls", address=ground.address, count=2_000, token=token),
        pairs=pairs,
        warm=True,
    )
    assert all(report["calls"] == 2_000 for report in verdict.reports), verdict.reports
    return verdict.faults(strangers=False)


async def test_a_burst_of_calls(ground: Ground) -> None:
    assert await beside_a_burst(ground) == []


async def test_a_burst_that_is_felt_is_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} calls_served_as_they_come") as made:
        faults = await beside_a_burst(made, pairs=1)
    assert any(fault.startswith("the p99 rose") for fault in faults), faults
    assert any(fault.startswith("calls of the first second") for fault in faults), faults


async def test_silent_connections(ground: Ground) -> None:
    verdict = await ground.attacked(lambda: attacking(ATTACKS, "silent", address=ground.address, count=1_000))
    assert verdict.faults() == []
    assert all(report["connections"] + report["refused"] == 1_000 for report in verdict.reports)


async def test_everything_too_large(ground: Ground) -> None:
    token = await ground.user("attacker", "viewer", "own-1")
    options = {"methods": await ground.methods()}

    def attack() -> AbstractAsyncContextManager[Attack]:
        return attacking(ATTACKS, "oversized", address=ground.address, token=token, options=options)

    verdict = await ground.attacked(attack)
    assert verdict.faults() == []
    # To the end, for once: the server ends every call, or its connection. Headers that are never ended are no call, and
    # hold nothing but the connection that they come by.
    async with attack() as to_the_end:
        await to_the_end.through()
    report = to_the_end.report
    assert report["all"] > 2 * len(options["methods"])
    unanswered = {name.removeprefix("unanswered: ") for name in report if name.startswith("unanswered")}
    assert unanswered <= {"headers without an end"}
    # These calls are refused, and their connections are left to the others that come by them.
    assert report["ended: headers of 100 KB"] == report["ended: headers of 1 MB"] == 1
    assert await ground.window(60)
