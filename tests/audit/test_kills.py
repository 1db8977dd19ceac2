"""Every record reaches each sink in the order of the log, whichever process is killed at any time (promise 16)."""

from __future__ import annotations

import asyncio
import json
import operator
import random
import sys
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from tests.audit.receivers import HttpReceiver, http_receiver
from tests.conftest import Database, connection
from tests.processes import started
from tests.waiting import poll_until

RECORDS = 3000
ROUNDS = 10
# The number of new records before each round.
A_ROUND = 300


async def write_records(sql: asyncpg.Connection, count: int, first: int = 1) -> None:
    """Fills the log up to `count` as the sequencer does, without the other parts of a change."""
    await sql.execute(
        "INSERT INTO operation_logs (username, action, resource_type, request_method, request_path, status_code, "
        "started_at, sequence, record_hash, mark) "
        "SELECT 'ada', 'get', 'container', 'UNARY', '/x', 200, now(), n, sha256('x'), int8send(n) "
        "FROM generate_series($1::integer, $2::integer) AS n",
        first,
        count,
    )
    await sql.execute("UPDATE stream_head SET audit_sequence = $1 WHERE id = 1", count)


def sequences(receiver: HttpReceiver) -> list[list[int]]:
    """Returns the sequences of each acknowledged batch."""
    return [
        [json.loads(line)["metadata"]["sequence"] for line in posted.body.splitlines()]
        for posted in receiver.posted
    ]


def faults(batches: list[list[int]], count: int) -> list[str]:
    """Returns lost records and those out of order.

    A batch may be sent again, from its first record on.
    """
    found: list[str] = []
    newest = 0
    for batch in batches:
        if batch != list(range(batch[0], batch[-1] + 1)):
            found.append(f"a batch with gaps at {batch[0]}")
        if batch[0] > newest + 1:
            found.append(f"a gap before {batch[0]}")
        newest = max(newest, batch[-1])
    if newest != count:
        found.append(f"it ends with {newest}")
    return found


def command(database: Database, folder: Path, *more: str) -> tuple[str, ...]:
    """Returns the command of a runner in a separate process, with leases of a second."""
    return (sys.executable, "-m", "tests.audit.sending", database.system_dsn, str(folder), "1", *more)


@pytest.mark.full
async def test_no_record_is_lost_by_kills(database: Database, tmp_path: Path) -> None:
    source = random.Random(11)
    loop = asyncio.get_running_loop()
    async with connection(database.admin_dsn) as sql, http_receiver() as receiver:
        await sql.execute(
            "INSERT INTO audit_sinks (name, kind, address) VALUES ('siem', 'http', $1)", receiver.url
        )

        async def position() -> int:
            return int(await sql.fetchval("SELECT position FROM audit_sinks"))

        async def posted() -> int:
            return len(receiver.posted)

        for number in range(ROUNDS):
            # In every other round the kill comes before a response; otherwise at any time between responses and cursor
            # updates.
            held = number % 2 == 0
            # A fast runner may have sent all earlier records.
            await write_records(sql, (number + 1) * A_ROUND, number * A_ROUND + 1)
            if held:
                receiver.open.clear()
            before, stood = len(receiver.posted), await position()
            async with started(*command(database, tmp_path)) as process:
                await poll_until(posted, partial(operator.lt, before), seconds=20)
                if held:
                    process.kill()
                else:
                    loop.call_later(source.random() * 0.1, process.kill)
                await process.wait()
            if held:
                assert await position() == stood
                receiver.open.set()
            assert await position() <= max(batch[-1] for batch in sequences(receiver))
        async with started(*command(database, tmp_path)), started(*command(database, tmp_path)):
            await poll_until(position, lambda found: found == ROUNDS * A_ROUND, seconds=30)
        assert faults(sequences(receiver), ROUNDS * A_ROUND) == []


@pytest.mark.full
async def test_a_cursor_that_does_not_wait_is_detected(database: Database, tmp_path: Path) -> None:
    async with connection(database.admin_dsn) as sql, http_receiver() as receiver:
        await write_records(sql, RECORDS)
        await sql.execute(
            "INSERT INTO audit_sinks (name, kind, address) VALUES ('siem', 'http', $1)", receiver.url
        )
        receiver.open.clear()

        async def position() -> int:
            return int(await sql.fetchval("SELECT position FROM audit_sinks"))

        async with started(*command(database, tmp_path, "careless")):
            await poll_until(position, lambda found: found > 0, seconds=20)
            assert receiver.answered == 0


def test_gaps_are_detected() -> None:
    assert faults([[1, 2, 3], [7, 8]], 8) == ["a gap before 7"]
    assert faults([[1, 2, 4]], 4) == ["a batch with gaps at 1"]
    assert faults([[1, 2], [2, 3], [1, 2]], 4) == ["it ends with 3"]
    assert faults([[1, 2], [2, 3], [4]], 4) == []
