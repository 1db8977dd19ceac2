"""Promise 3: watches lose nothing.

The faults are kills, frozen servers, ended backends and cut connections.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.watches.campaign import campaign
from tests.promises.watches.environment import Size
from tests.promises.watches.recording import Recording
from tests.promises.watches.validators import violations


def uneventful(recording: Recording) -> list[str]:
    """Returns the parts of a meaningful campaign that this one lacks."""
    counts = recording.counts
    wanted = {
        "a kill": counts["fault: kill_a_server"],
        "a stream that was cut": counts["a stream ended: UNAVAILABLE"],
        "a mutation that was asked for again": counts["asked again, and answered"],
        "a token below the horizon": sum(probe.how == "below" for probe in recording.probes),
        "a token of a namespace that is gone": sum(probe.how == "gone" for probe in recording.probes),
        "a token of another history": sum(probe.how == "history" for probe in recording.probes),
        "a deletion": sum(event.what == "deleted" for event in recording.log),
        "a transaction of several events": sum(bool(write.restarted) for write in recording.writes),
    }
    return [what for what, times in wanted.items() if not times]


@pytest.mark.full(minutes=10)
async def test_watches_lose_nothing_in_a_short_campaign(database: Database, tmp_path: Path) -> None:
    recording = await campaign(database, tmp_path, Size(mutations=500, faults=8, watchers=12))
    assert violations(recording) == {}
    assert uneventful(recording) == []


@pytest.mark.soak(part="watches")
async def test_watches_lose_nothing(database: Database, tmp_path: Path) -> None:
    recording = await campaign(database, tmp_path, Size(mutations=100_000, faults=200))
    assert violations(recording) == {}
    assert uneventful(recording) == []
    # Most streams are cut before their readers are too slow. In a short campaign all of them may be.
    assert recording.counts["a stream ended: RESOURCE_EXHAUSTED SLOW_CONSUMER"]
