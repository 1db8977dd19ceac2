"""Promises 6 and 13: strangers who guess at log-ins, or call without a token, hold up nobody and fill no log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse_client import AsyncClient, PilothouseError, RetryPolicy
from tests.conftest import Database, connection, number_changes
from tests.harness import PASSWORD
from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.ground import BYSTANDERS, CALLS, MOST_LOG_BYTES_A_MINUTE, Ground, Verdict
from tests.promises.hostile.ground import ground as made_ground
from tests.waiting import Stopwatch, patient

STRANGERS = "tests.promises.hostile.strangers"
_SABOTAGE = "tests.promises.hostile.sabotage_of_strangers"
_HONEST = 30
_RECORDS_A_MINUTE = 100
pytestmark = pytest.mark.soak(part="hostile")


async def beside(ground: Ground, name: str, count: int) -> Verdict:
    """What bystanders meet beside an attack from its first moment, while it goes on and on."""
    return await ground.attacked(lambda: attacking(STRANGERS, name, address=ground.address, count=count))


async def failed_log_ins(ground: Ground) -> list[str]:
    """What keeps honest users, who come all at once from another address, from logging in at the first try."""

    async def log_in(number: int) -> str:
        once = RetryPolicy(attempts=1)
        async with AsyncClient(ground.address, retry=once, timeout=patient(15.0)) as client:
            try:
                await client.login(f"bystander-{number % BYSTANDERS + 1}", PASSWORD)
            except PilothouseError as error:
                return f"{error.code.name} {error.reason}"
        return ""

    async with attacking(STRANGERS, "logins", address=ground.address, count=360) as attack:
        await ground.window(CALLS // 5)
        outcomes = await asyncio.gather(*map(log_in, range(_HONEST)))
    assert attack.report["begun"] >= 360
    return [outcome for outcome in outcomes if outcome]


async def test_invented_log_ins_keep_nobody_out(ground: Ground) -> None:
    assert await failed_log_ins(ground) == []
    assert (await beside(ground, "logins", 360)).faults() == []


async def test_log_ins_that_stand_in_one_line_are_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} all_log_ins_stand_in_one_line") as made:
        assert await failed_log_ins(made)


async def overfull_log(ground: Ground) -> list[str]:
    """By how much the log grows beyond what strangers may leave."""
    watch = Stopwatch()
    async with attacking(STRANGERS, "refused", address=ground.address, count=60) as attack:
        for _ in range(3):
            await ground.window(CALLS)
        seconds = watch.passed()
    report = attack.report
    # Each connection has its next one refused in its turn, fifty a second of all.
    assert report["calls"] >= 750, report
    async with connection(ground.database.admin_dsn) as sql:
        await number_changes(sql)
        records, size = await sql.fetchrow(
            "SELECT count(*), coalesce(sum(pg_column_size(log.*)), 0) FROM operation_logs AS log "
            "WHERE user_id IS NULL AND error_code IS NOT NULL"
        )
    # A minute of the server's may have ended, and another one begun.
    minutes = seconds / 60 + 1
    faults = []
    if records > _RECORDS_A_MINUTE * minutes:
        faults.append(f"{records} records of {report['calls']} calls in {seconds:.0f} s")
    if size > MOST_LOG_BYTES_A_MINUTE * minutes:
        faults.append(f"{size} bytes of records in {seconds:.0f} s")
    return faults


async def test_calls_without_a_token_do_not_fill_the_log(ground: Ground) -> None:
    assert await overfull_log(ground) == []
    assert (await beside(ground, "refused", 60)).faults() == []


async def test_a_log_that_is_filled_is_found(database: Database, tmp_path: Path) -> None:
    async with made_ground(database, tmp_path, sabotage=f"{_SABOTAGE} each_refusal_has_a_record") as made:
        assert await overfull_log(made)
