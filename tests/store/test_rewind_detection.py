"""Each sign of a rewound database is detected by itself, and changes that are no such sign are not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.feed import Feed
from pilothouse_server.store.rewind_detection import FILE_NAME, RewindDetector
from pilothouse_server.store.unit_of_work import Store
from pilothouse_server.watch.hub import Hub
from tests.conftest import Database, number_changes
from tests.harness import settings_for
from tests.migrations.sequencing import event, put, record
from tests.waiting import patient, poll_until

BACK = {
    "a lower revision": "UPDATE stream_head SET revision = revision - 1",
    "a lower sequence": "UPDATE stream_head SET audit_sequence = audit_sequence - 1",
    "another event": "UPDATE stream_head SET event_mark = 'another!'",
    "another event, passed": "UPDATE stream_head SET revision = revision + 1; "
    "UPDATE events SET mark = 'another!' WHERE revision = 2",
    "another record": "UPDATE stream_head SET record_mark = 'another!'",
}
ONWARD = {
    "nothing": "SELECT 1",
    "more": "UPDATE stream_head SET revision = revision + 1, audit_sequence = audit_sequence + 1",
    "an event that is not kept": "UPDATE stream_head SET revision = revision + 1; "
    "DELETE FROM events WHERE revision = 2",
}


@asynccontextmanager
async def opened(database: Database, directory: Path) -> AsyncIterator[Store]:
    """Writes two events and two records; yields a server's store."""
    async with database.system() as system:
        for number in range(2):
            await put(system, [record(number)], [(event(number), b"message")])
            await number_changes(system)
    store = Store(Engines.connect(settings_for(database, directory)))
    try:
        yield store
    finally:
        await store.database.close()


async def history(database: Database) -> str:
    async with database.owner() as owner:
        return str(await owner.fetchval("SELECT history_id FROM stream_head"))


@asynccontextmanager
async def running(store: Store, directory: Path) -> AsyncIterator[Feed]:
    """Runs the feed of a server with this data folder, and yields it once it has reached the head."""
    feed = Feed(store, Hub(16), RewindDetector(store, directory / FILE_NAME))
    task = asyncio.create_task(feed.run())
    try:
        await asyncio.wait_for(feed.started(), None)
        yield feed
    finally:
        await cancel_and_wait(task)


@pytest.mark.parametrize("change", [*BACK, *ONWARD])
async def test_a_restarted_server_detects_a_rewind(database: Database, tmp_path: Path, change: str) -> None:
    async with opened(database, tmp_path) as store:
        async with running(store, tmp_path):
            before = await history(database)
        async with database.owner() as owner:
            await owner.execute({**BACK, **ONWARD}[change])
        # Two servers have stored the same position: the second one adopts the history that the first one begins.
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / FILE_NAME).write_bytes((tmp_path / FILE_NAME).read_bytes())
        async with running(store, tmp_path) as one, running(store, tmp_path / "second") as other:
            now = await history(database)
            assert (now != before) is (change in BACK)
            assert one.hub.history == other.hub.history == now
            async with database.system() as system:
                await number_changes(system)
                records = "SELECT count(*) FROM operation_logs WHERE resource_type = 'database'"
                assert await system.fetchval(records) == (1 if change in BACK else 0)


async def test_a_return_to_a_former_history_is_detected(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as store:
        async with running(store, tmp_path):
            first = await history(database)
        for change, goes_back in (("revision = revision", False), ("revision = revision - 1", True)):
            async with database.owner() as owner:
                await owner.execute("SELECT begin_new_history()")
            async with running(store, tmp_path) as feed:
                assert feed.hub.history != first
            async with database.owner() as owner:
                await owner.execute(f"UPDATE stream_head SET history_id = $1, {change}", first)
            async with running(store, tmp_path) as feed:
                assert (feed.hub.history != first) is goes_back


@pytest.mark.parametrize("change", ["a lower revision", "a lower sequence"])
async def test_a_running_server_detects_a_rewind(database: Database, tmp_path: Path, change: str) -> None:
    """Its connections stay open, so only the head itself shows that the database has changed."""
    async with opened(database, tmp_path) as store, running(store, tmp_path) as feed:
        before = await history(database)
        told = asyncio.Event()
        feed.on_new_history = told.set
        async with database.owner() as owner:
            await owner.execute(BACK[change])

        async def another() -> bool:
            return feed.hub.history != before

        await poll_until(another)
        assert told.is_set()
        assert feed.hub.history == await history(database)


@pytest.mark.parametrize("unreadable", [True, False])
async def test_an_unusable_data_folder_does_not_stop_the_feed(
    database: Database, tmp_path: Path, *, unreadable: bool
) -> None:
    place = tmp_path / "folder"
    if unreadable:
        place.mkdir()
        (place / FILE_NAME).write_bytes(b"{")
    else:
        place.write_text("a file")
    async with opened(database, tmp_path) as store:
        async with running(store, place) as feed:
            assert feed.hub.history == await history(database)
        assert (place / FILE_NAME).exists() is unreadable


async def test_a_slow_disk_does_not_block_the_event_loop(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread other than the event loop's replaces the file, and the loop continues."""
    replaces, may_go_on, replace = threading.Event(), threading.Event(), os.replace

    def slowly(*paths: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            replaces.set()
            assert may_go_on.wait(patient(30.0))
        replace(*paths)

    monkeypatch.setattr(os, "replace", slowly)

    async def is_replacing() -> bool:
        return replaces.is_set()

    async with opened(database, tmp_path) as store, running(store, tmp_path):
        try:
            await poll_until(is_replacing, what="the file")
        finally:
            may_go_on.set()
    assert (tmp_path / FILE_NAME).exists()
