"""Promises 9 and 13 against callers that break the manners of the transport; bystanders have addresses of their own."""

from __future__ import annotations

import pytest

from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.ground import Ground

ATTACKS = "tests.promises.hostile.attacks"
pytestmark = pytest.mark.soak(part="hostile")


@pytest.mark.parametrize("count", [2_000, 20_000])
async def test_rapid_resets(ground: Ground, count: int) -> None:
    verdict = await ground.attacked(lambda: attacking(ATTACKS, "resets", address=ground.address, count=count))
    assert verdict.faults() == []
    # A server that closes connections meanwhile has defended itself: what counts is that it was attacked.
    assert all(report["resets"] >= min(count, 2_000) for report in verdict.reports), verdict.reports


async def test_silent_connections(ground: Ground) -> None:
    verdict = await ground.attacked(lambda: attacking(ATTACKS, "silent", address=ground.address, count=1_000))
    assert verdict.faults() == []
    assert all(report["connections"] + report["refused"] == 1_000 for report in verdict.reports)


async def test_everything_too_large(ground: Ground) -> None:
    token = await ground.user("attacker", "viewer", "own-1")
    options = {"methods": await ground.methods()}
    verdict = await ground.attacked(
        lambda: attacking(ATTACKS, "oversized", address=ground.address, count=1, token=token, options=options)
    )
    assert verdict.faults() == []
    # Each was sent in some window, and the server ended each call or its connection.
    assert sum(report["all"] for report in verdict.reports) > 100, verdict.reports
    unanswered = [name for report in verdict.reports for name in report if name.startswith("unanswered")]
    assert unanswered == []
