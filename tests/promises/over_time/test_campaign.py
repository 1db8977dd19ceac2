"""Promise 15: statements about a cluster stay true after faults.

The faults are restarts, hand-overs, restores, failovers and wrong clocks.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import StartMigrated
from tests.promises.over_time.campaign import campaign, random_faults
from tests.promises.over_time.environment import FAKETIME
from tests.promises.over_time.steps import FAULTS

_MINUTES = 17.0
pytestmark = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")


@pytest.mark.full(minutes=10)
async def test_cluster_and_database_agree_after_each_fault(
    folder: Path, start_migrated: StartMigrated
) -> None:
    report = await campaign(folder, start_migrated, FAULTS)
    assert report.problems == []
    assert report.faults == [fault.__name__ for fault in FAULTS]
    # A watch resumes after a fault without loss, and begins again after a fault with loss.
    assert report.resumed
    assert report.begun_anew >= 3


@pytest.mark.soak(part="time")
async def test_cluster_and_database_agree_for_a_long_time(
    folder: Path, start_migrated: StartMigrated
) -> None:
    seed = int(os.environ.get("PILOTHOUSE_TEST_SEED", "1"))
    report = await campaign(folder, start_migrated, random_faults(seed), seed=seed, minutes=_MINUTES)
    assert report.problems == [], f"seed {seed}, after {report.faults}"
    assert set(report.faults) == {fault.__name__ for fault in FAULTS}
