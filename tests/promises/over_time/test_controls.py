"""The product is broken on purpose, in the servers of a test alone: the campaign over time must find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promises.over_time import steps
from tests.promises.over_time.campaign import campaign
from tests.promises.over_time.site import FAKETIME
from tests.promises.over_time.steps import Fault

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize(
    ("sabotage", "fault", "problem"),
    [
        ("lists_are_not_compared", steps.unseen, "agreement"),
        ("leases_are_believed", steps.wrong_clock, "agreement"),
        ("changes_are_not_told", steps.restart, "the watcher knows what there is"),
    ],
)
async def test_a_broken_server_is_found(folder: Path, sabotage: str, fault: Fault, problem: str) -> None:
    report = await campaign(
        folder, [fault], sabotage=f"tests.promises.over_time.sabotage {sabotage}", seconds=1.5
    )
    assert any(problem in found for found in report.problems), report
