"""The controls of the campaign over time: it must find each injected fault.

Faults are injected only into the servers of these tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartMigrated
from tests.promises.over_time import steps
from tests.promises.over_time.campaign import campaign
from tests.promises.over_time.environment import FAKETIME
from tests.promises.over_time.steps import Fault

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize(
    ("injected", "faults", "problems"),
    [
        # Only the watcher detects the first fault, and only the comparison with the cluster detects the second.
        (
            "changes_are_not_told,lists_are_not_compared",
            [steps.restart, steps.unseen],
            {"restart: the watcher knows what there is", "unseen: an agreement"},
        ),
        ("leases_are_believed", [steps.wrong_clock], {"wrong_clock: an agreement"}),
    ],
)
async def test_a_broken_server_is_found(
    folder: Path, start_migrated: StartMigrated, injected: str, faults: list[Fault], problems: set[str]
) -> None:
    report = await campaign(
        folder,
        start_migrated,
        faults,
        injected_fault=f"tests.promises.over_time.fault_injection {injected}",
        seconds=1.5,
        goes_on=True,
    )
    # A fault may show immediately, or only at the second check after it.
    found = [each.removeprefix("after ") for each in report.problems]
    missed = {each for each in problems if not any(problem.startswith(each) for problem in found)}
    assert missed == set(), report
