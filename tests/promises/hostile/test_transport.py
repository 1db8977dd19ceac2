"""Promises 9 and 13 against callers that misuse the transport.

Bystanders have addresses of their own.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.environment import Environment
from tests.promises.hostile.environment import environment as made_environment

ATTACKS = "tests.promises.hostile.attacks"
_FAULTS_MODULE = "tests.promises.hostile.admission_faults"
# The number of pairs of windows for attacks that last only a moment, because each window has few calls in that
# time.
_OF_A_MOMENT = 5
pytestmark = pytest.mark.soak(part="hostile")


@pytest.mark.parametrize(("count", "strangers"), [(2_000, False), (20_000, False), (20_000, True)])
async def test_rapid_resets_delay_no_others(environment: Environment, count: int, strangers: bool) -> None:
    token = "" if strangers else await environment.user("somebody", "viewer", "own-1")
    verdict = await environment.attacked(
        lambda: attacking(ATTACKS, "resets", address=environment.address, count=count, token=token),
        pairs=_OF_A_MOMENT,
        warm=True,
    )
    assert verdict.faults(strangers=strangers) == []
    assert all(report["resets"] == count for report in verdict.reports), verdict.reports


async def beside_a_burst(environment: Environment, *, pairs: int = _OF_A_MOMENT) -> list[str]:
    """Returns the faults of bystanders during a burst of 2,000 calls of one user."""
    token = await environment.user("somebody", "viewer", "own-1")
    verdict = await environment.attacked(
        lambda: attacking(ATTACKS, "calls", address=environment.address, count=2_000, token=token),
        pairs=pairs,
        warm=True,
    )
    assert all(report["calls"] == 2_000 for report in verdict.reports), verdict.reports
    return verdict.faults(strangers=False)


async def test_a_burst_of_calls_delays_no_others(environment: Environment) -> None:
    assert await beside_a_burst(environment) == []


async def test_a_burst_that_delays_others_is_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} calls_served_as_they_come"
    ) as made:
        faults = await beside_a_burst(made, pairs=1)
    assert any(fault.startswith("the p99 rose") for fault in faults), faults
    assert any(fault.startswith("calls of the first second") for fault in faults), faults


async def test_silent_connections_delay_no_others(environment: Environment) -> None:
    verdict = await environment.attacked(
        lambda: attacking(ATTACKS, "silent", address=environment.address, count=1_000)
    )
    assert verdict.faults() == []
    assert all(report["connections"] + report["refused"] == 1_000 for report in verdict.reports)


async def test_oversized_data_delays_no_others_and_is_refused(environment: Environment) -> None:
    token = await environment.user("attacker", "viewer", "own-1")
    options = {"methods": await environment.methods()}

    def attack() -> AbstractAsyncContextManager[Attack]:
        return attacking(ATTACKS, "oversized", address=environment.address, token=token, options=options)

    verdict = await environment.attacked(attack)
    assert verdict.faults() == []
    # This run lasts until every attempt was made. The server ends every call or its connection. Headers that
    # are never finished are not a call, and occupy nothing but their connection.
    async with attack() as to_the_end:
        await to_the_end.through()
    report = to_the_end.report
    assert report["all"] > 2 * len(options["methods"])
    unanswered = {name.removeprefix("unanswered: ") for name in report if name.startswith("unanswered")}
    assert unanswered <= {"headers without an end"}
    # These calls are refused, but their connections stay open for other calls.
    assert report["ended: headers of 100 KB"] == report["ended: headers of 1 MB"] == 1
    assert await environment.window(60)
