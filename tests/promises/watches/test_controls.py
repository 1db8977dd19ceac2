"""The controls of promise 3: the checker must find each injected fault.

Faults are injected only into the servers of these tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.watches.campaign import campaign
from tests.promises.watches.environment import Size
from tests.promises.watches.fault_injection import INJECTED_FAULTS
from tests.promises.watches.validators import violations

# The injected fault → the guarantee that its validator must report.
FOUND_BY = {
    "hub_drops_an_event": "no_loss",
    "feed_publishes_out_of_order": "revisions_rise",
    "synced_comes_before_the_state": "answers_are_well_formed",
    "a_scope_misses_an_event": "no_loss",
    "leaving_is_not_told": "no_loss",
    "who_is_behind_skips": "no_loss",
    "below_the_horizon_goes_on": "tokens_hold",
    "a_namespace_ends_in_silence": "watches_end_with_their_namespace",
    "another_history_goes_on": "tokens_hold",
}
# It takes more mutations until a reader falls behind the ring.
_LONGER = {"who_is_behind_skips": 900}
# One fault for each validator runs with every change. Faults that break different guarantees share a campaign,
# because most of its cost is starting the servers.
_TOGETHER = (
    ("hub_drops_an_event",),
    (
        "feed_publishes_out_of_order",
        "synced_comes_before_the_state",
        "below_the_horizon_goes_on",
        "a_namespace_ends_in_silence",
    ),
)


async def not_found(database: Database, directory: Path, *injected: str) -> set[str]:
    """Returns the guarantees that these faults break and no validator reports."""
    mutations = max(_LONGER.get(each, 120) for each in injected)
    size = Size(mutations=mutations, faults=0, watchers=4, injected_fault=",".join(injected))
    found = violations(await campaign(database, directory, size))
    return {FOUND_BY[each] for each in injected} - found.keys()


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize("injected", _TOGETHER, ids=["one", "several"])
async def test_every_validator_finds_a_broken_server(
    database: Database, tmp_path: Path, injected: tuple[str, ...]
) -> None:
    assert await not_found(database, tmp_path, *injected) == set()


@pytest.mark.soak(part="watches")
@pytest.mark.parametrize("injected_fault", INJECTED_FAULTS)
async def test_a_broken_server_is_found(database: Database, tmp_path: Path, injected_fault: str) -> None:
    assert await not_found(database, tmp_path, injected_fault) == set()
