"""Records of reads survive a database outage; calls that need their record fail immediately."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from pilothouse_server.errors import Unavailable
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.audit_writer import AuditWriter
from pilothouse_server.store.errors import database_unavailable
from pilothouse_server.store.unit_of_work import Store
from tests.waiting import poll_until


class Database:
    """Stores records, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.refused = 0
        self.kept: list[Any] = []

    def system_unit(self) -> Database:
        return self

    async def begin(self) -> None:
        if self.away:
            self.refused += 1
            raise database_unavailable()

    async def rollback(self) -> None:
        pass

    async def commit(self, *, audit: Sequence[AuditRecord]) -> None:
        self.kept += audit


@asynccontextmanager
async def writing(database: Database, *, capacity: int = 1_000) -> AsyncIterator[AuditWriter]:
    writer = AuditWriter(cast(Store, database), capacity=capacity)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        await cancel_and_wait(running)


def record(number: int) -> AuditRecord:
    return cast(AuditRecord, number)


async def test_records_of_reads_are_written_in_order_after_an_outage() -> None:
    database = Database()
    database.away = True
    async with writing(database) as writer:
        for number in range(600):
            writer.submit(record(number))
        await refused(database, 2)
        database.away = False
        await kept(database, 600)
        assert database.kept == list(range(600))
        assert writer.lost == 0


async def test_a_call_that_needs_its_record_fails_during_an_outage() -> None:
    database = Database()
    database.away = True
    async with writing(database) as writer:
        writer.submit(record(1))
        with pytest.raises(Unavailable):
            await writer.write(record(2))
        database.away = False
        await kept(database, 1)
        assert (database.kept, writer.lost) == ([1], 1)


async def test_records_that_exceed_the_queue_are_counted() -> None:
    database = Database()
    database.away = True
    async with writing(database, capacity=10) as writer:
        for number in range(10):
            writer.submit(record(number))
        await refused(database, 1)
        for number in range(10, 15):
            writer.submit(record(number))
        await refused(database, 2)
        database.away = False
        await kept(database, 10)
        assert (database.kept, writer.lost) == (list(range(10)), 5)


async def test_close_does_not_wait_for_a_database_that_is_away() -> None:
    database = Database()
    database.away = True
    writer = AuditWriter(cast(Store, database))
    for number in range(300):
        writer.submit(record(number))
    await writer.close()
    assert (database.kept, writer.lost) == ([], 300)


async def refused(database: Database, times: int) -> None:
    async def seen() -> bool:
        return database.refused >= times

    await poll_until(seen)


async def kept(database: Database, count: int) -> None:
    async def seen() -> bool:
        return len(database.kept) >= count

    await poll_until(seen)
