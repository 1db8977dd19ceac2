"""Promises 9 and 13 against callers that break the manners of the transport; bystanders have addresses of their own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.ground import Ground
from tests.promises.hostile.ground import ground as made_ground

ATTACKS = "tests.promises.hostile.attacks"
_SABOTAGE = "tests.promises.hostile.admission_sabotage"
# Where each is served as it comes they wait for nearly all of it.
_MOST_OF_A_BURST = 0.5
pytestmark = pytest.mark.soak(part="hostile")


@pytest.mark.parametrize("count", [2_000, 20_000])
async def test_rapid_resets(ground: Ground, count: int) -> None:
    """Calls that are taken back are no worse than 2,000 that are served, and take nobody's place."""
    token = await ground.user("somebody", "viewer", "own-1")

    def callers(name: str, number: int, token: str = "") -> AbstractAsyncContextManager[Attack]:
        return attacking(ATTACKS, name, address=ground.address, count=number, token=token)

    # Those of strangers would be refused one after the other: no twin of what comes all at once.
    verdict = await ground.attacked(
        lambda: callers("resets", count), honest=lambda: callers("calls", 2_000, token)
    )
    assert verdict.faults() == []
    assert all(report["resets"] == count for report in verdict.reports), verdict.reports


async def held_up_by_a_burst(ground: Ground) -> list[str]:
    """What bystanders meet while a user makes 2,000 calls in one moment. To take in what comes before a call of theirs
    takes its time, once; what must not be is that they wait until it is all done.
    """
    token = await ground.user("somebody", "viewer", "own-1")
    verdict = await ground.attacked(
        lambda: attacking(ATTACKS, "calls", address=ground.address, count=2_000, token=token)
    )
    assert all(report["calls"] == 2_000 for report in verdict.reports), verdict.reports
    found = [fault for fault in verdict.faults(strangers=False) if not fault.startswith("the p99")]
    shares = [
        window.p99 / report["seconds"] for window, report in zip(verdict.loud, verdict.reports, strict=True)
    ]
    if median(shares) > _MOST_OF_A_BURST:
        found.append(f"of the time of a burst they waited for {shares}")
    return found


async def test_a_burst_of_calls(ground: Ground) -> None:
    assert await held_up_by_a_burst(ground) == []


async def test_calls_that_are_served_as_they_come_are_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} calls_served_as_they_come") as made:
        assert await held_up_by_a_burst(made)


async def test_silent_connections(ground: Ground) -> None:
    verdict = await ground.attacked(
        lambda: attacking(ATTACKS, "silent", address=ground.address, count=1_000), standing=True
    )
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
