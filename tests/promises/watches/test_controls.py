"""The product is broken on purpose, in the servers of a test alone: the checker of promise 3 must find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.watches.campaign import campaign
from tests.promises.watches.ground import Size
from tests.promises.watches.sabotage import SABOTAGES
from tests.promises.watches.validators import violations

# The broken function → the guarantee that its validator must report.
FOUND_BY = {
    "hub_drops_an_event": "no_loss",
    "feed_publishes_out_of_order": "revisions_rise",
    "synced_comes_before_the_state": "answers_are_well_formed",
    "leaving_is_not_told": "no_loss",
    "who_is_behind_skips": "no_loss",
    "below_the_horizon_goes_on": "tokens_hold",
    "a_namespace_ends_in_silence": "watches_end_with_their_namespace",
    "another_history_goes_on": "tokens_hold",
}
# A reader that falls behind the ring takes some doing.
_LONGER = {"who_is_behind_skips": 900}
# One for each validator is of every change, the others are of the soak.
_OF_EVERY_CHANGE = {
    "hub_drops_an_event",
    "feed_publishes_out_of_order",
    "synced_comes_before_the_state",
    "below_the_horizon_goes_on",
    "a_namespace_ends_in_silence",
}


def _tier(sabotage: str) -> pytest.MarkDecorator:
    return pytest.mark.full(minutes=10) if sabotage in _OF_EVERY_CHANGE else pytest.mark.soak(part="watches")


@pytest.mark.parametrize("sabotage", [pytest.param(each, marks=_tier(each)) for each in SABOTAGES])
async def test_a_broken_server_is_found(database: Database, tmp_path: Path, sabotage: str) -> None:
    size = Size(mutations=_LONGER.get(sabotage, 120), faults=0, watchers=4, sabotage=sabotage)
    found = violations(await campaign(database, tmp_path, size))
    assert FOUND_BY[sabotage] in found, found
