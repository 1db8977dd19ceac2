"""Promises 6 and 13: anonymous callers delay no others and fill no log.

The callers guess logins, or call without a token.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pilothouse_client import AsyncClient, PilothouseError, RetryPolicy
from tests.conftest import Database, connection, number_changes
from tests.harness import PASSWORD
from tests.promises.hostile.attacker import Report, attacking
from tests.promises.hostile.environment import (
    BYSTANDERS,
    CALLS,
    MOST_LOG_BYTES_A_MINUTE,
    Environment,
    Verdict,
)
from tests.promises.hostile.environment import environment as made_environment
from tests.waiting import Stopwatch, patient

STRANGERS = "tests.promises.hostile.anonymous_callers"
_FAULTS_MODULE = "tests.promises.hostile.anonymous_faults"
_HONEST = 30
_RECORDS_A_MINUTE = 100
_HURRIED = 400
# The number of refusals that an address may receive each second, and the size of its initial burst. Each is a
# sum: of refusals in their turn, and of refusals whose deadline comes before their turn.
_TOLD_A_SECOND, _TOLD_AT_ONCE = 50 + 25, 21 + 11
pytestmark = pytest.mark.soak(part="hostile")


async def beside(environment: Environment, name: str, count: int, **order: Any) -> Verdict:
    """Measures the bystanders next to an attack from its first moment."""
    return await environment.attacked(
        lambda: attacking(STRANGERS, name, address=environment.address, count=count, **order)
    )


async def failed_log_ins(environment: Environment, **order: Any) -> list[str]:
    """Returns the failures of honest users to log in at the first attempt.

    They log in concurrently, and have logged in before.
    """

    async def log_in(number: int) -> str:
        once = RetryPolicy(attempts=1)
        async with AsyncClient(environment.address, retry=once, timeout=patient(15.0)) as client:
            try:
                await client.login(f"bystander-{number % BYSTANDERS + 1}", PASSWORD)
            except PilothouseError as error:
                return f"{error.code.name} {error.reason}"
        return ""

    async with attacking(STRANGERS, "logins", address=environment.address, count=360, **order) as attack:
        await environment.window(CALLS // 5)
        outcomes = await asyncio.gather(*map(log_in, range(_HONEST)))
    assert attack.report["begun"] >= 360
    return [outcome for outcome in outcomes if outcome]


async def test_users_can_log_in_during_invented_logins(environment: Environment) -> None:
    assert await failed_log_ins(environment) == []
    assert (await beside(environment, "logins", 360)).faults() == []


async def test_known_users_can_log_in_from_the_address_of_invented_logins(environment: Environment) -> None:
    assert await failed_log_ins(environment, source="127.0.0.1") == []


async def test_logins_that_share_one_queue_are_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} all_log_ins_stand_in_one_line"
    ) as made:
        assert await failed_log_ins(made)


async def overfull_log(environment: Environment) -> list[str]:
    """Returns by how much the log exceeds the bound for anonymous callers."""
    watch = Stopwatch()
    async with attacking(STRANGERS, "refused", address=environment.address, count=60) as attack:
        for _ in range(3):
            await environment.window(CALLS)
        seconds = watch.passed()
    report = attack.report
    # Refusals are sent in turn, fifty a second in total, and each connection makes its next call after that.
    assert report["calls"] >= 750, report
    async with connection(environment.database.admin_dsn) as sql:
        await number_changes(sql)
        records, size = await sql.fetchrow(
            "SELECT count(*), coalesce(sum(pg_column_size(log.*)), 0) FROM operation_logs AS log "
            "WHERE user_id IS NULL AND error_code IS NOT NULL"
        )
    # The server may have finished one minute and begun the next.
    minutes = seconds / 60 + 1
    faults = []
    if records > _RECORDS_A_MINUTE * minutes:
        faults.append(f"{records} records of {report['calls']} calls in {seconds:.0f} s")
    if size > MOST_LOG_BYTES_A_MINUTE * minutes:
        faults.append(f"{size} bytes of records in {seconds:.0f} s")
    return faults


async def test_calls_without_a_token_do_not_fill_the_log(environment: Environment) -> None:
    assert await overfull_log(environment) == []
    assert (await beside(environment, "refused", 60)).faults() == []


async def test_a_log_that_is_filled_is_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} each_refusal_has_a_record"
    ) as made:
        assert await overfull_log(made)


def told_beyond_the_pace(report: Report) -> int:
    """Returns how many refusals an address received beyond its rate."""
    return int(report["told"] - _TOLD_AT_ONCE - _TOLD_A_SECOND * report["seconds"])


@pytest.mark.parametrize("seconds", [1.0, 3.0])
async def test_short_deadlines_are_no_way_around_the_pace_of_refusals(
    environment: Environment, seconds: float
) -> None:
    verdict = await beside(environment, "hurried", _HURRIED, options={"seconds": seconds})
    assert verdict.faults() == []
    for report in verdict.reports:
        # All calls were repeated, and some received their refusal.
        assert report["calls"] - report["told"] >= _HURRIED // 2, report
        assert report["told"] >= _TOLD_AT_ONCE, report
        assert told_beyond_the_pace(report) <= 0, report


async def test_refusals_that_are_sent_before_each_deadline_are_found(
    database: Database, tmp_path: Path
) -> None:
    injected_fault = f"{_FAULTS_MODULE} each_refusal_is_told_before_its_deadline"
    async with made_environment(database, tmp_path, injected_fault=injected_fault) as made:
        order = {"address": made.address, "count": _HURRIED, "options": {"seconds": 1.0}}
        async with attacking(STRANGERS, "hurried", **order) as attack:
            await made.window(CALLS // 2)
    assert told_beyond_the_pace(attack.report) > 0, attack.report
