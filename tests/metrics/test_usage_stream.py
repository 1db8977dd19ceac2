"""Samples reach every watcher, on every server, and no slow watcher delays anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from pilothouse_server.errors import Unavailable
from pilothouse_server.metrics.model import StoredSample
from pilothouse_server.metrics.usage_stream import Interest, PublishedSample, UsageStream
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database, connection
from tests.metrics.environment import Box, Environment, environment_of
from tests.virtual_time import virtual_time
from tests.waiting import Stopwatch, poll_until, within

START = datetime(2025, 1, 1, tzinfo=UTC)
EVERYTHING = Interest(lambda: None)


def render(sample: StoredSample) -> bytes:
    return f"{sample.container}@{sample.timestamp.timestamp():.0f} ".encode()


@asynccontextmanager
async def running(environment: Environment, **changes: float) -> AsyncIterator[UsageStream]:
    """Runs the live samples of one server, as its supervisor does."""
    stream = UsageStream(environment.store, render, **changes)
    task = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        await cancel_and_wait(task)


@asynccontextmanager
async def watched(
    environment: Environment, **changes: float
) -> AsyncIterator[AsyncIterator[Sequence[PublishedSample]]]:
    """Yields the samples that a server sends to a watcher of everything."""
    async with (
        running(environment, **changes) as stream,
        stream.watching() as position,
        aclosing(stream.follow(position, (), EVERYTHING)) as answers,
    ):
        yield answers


async def told(answers: AsyncIterator[Sequence[PublishedSample]]) -> list[tuple[str, datetime]]:
    """Returns the containers and times of the next response that contains samples."""
    async with within(10):
        async for answer in answers:
            if answer:
                return [(live.sample.container, live.sample.timestamp) for live in answer]
    raise AssertionError("the stream ended")


def stored(box: Box, second: int, id_: int = 0) -> StoredSample:
    """Returns a sample as the database would return it."""
    absent = dict.fromkeys(StoredSample.__struct_fields__)
    given = absent | {
        "id": id_,
        "container_id": box.id,
        "namespace_id": box.namespace_id,
        "namespace": box.namespace,
        "container": box.name,
        "container_uid": "",
        "timestamp": START + timedelta(seconds=second),
        "cpu_cores_used": 0.0,
        "memory_bytes_used": 0,
    }
    return StoredSample(**given)  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="session")
async def other(database: Database, environment: Environment) -> AsyncIterator[Environment]:
    """Yields another server on the same database."""
    async with environment_of(database) as made:
        yield made


async def test_a_sample_stored_by_another_server_is_sent(
    environment: Environment, other: Environment
) -> None:
    boxes = [await environment.box(name=name) for name in ("api", "web")]
    async with watched(environment) as answers:
        for box in boxes:
            now = datetime.now(UTC)
            await other.usage.store([box.sample(now)])
            assert await told(answers) == [(box.name, now)]


async def test_samples_of_two_writers_are_sent_despite_unordered_ids(environment: Environment) -> None:
    """A batch that took its ids first and commits last is not skipped."""
    early, late = await environment.box(name="early"), await environment.box(name="late")
    now = datetime.now(UTC)
    insert = (
        "WITH stored AS (INSERT INTO container_resource_usage (container_id, namespace_id, timestamp) "
        "VALUES ($1, $2, $3) RETURNING id) SELECT pg_notify('pilothouse_usage', id::text) FROM stored"
    )
    async with (
        watched(environment, poll_seconds=60.0) as answers,
        environment.database.system() as connection,
    ):
        open_transaction = connection.transaction()
        await open_transaction.start()
        await connection.execute(insert, early.id, early.namespace_id, now)
        await environment.usage.store([late.sample(now)])
        assert await told(answers) == [("late", now)]
        await open_transaction.commit()
        assert await told(answers) == [("early", now)]


async def test_a_lost_notification_costs_no_sample(environment: Environment) -> None:
    box = await environment.box()
    async with watched(environment, poll_seconds=0.05) as answers:
        now = datetime.now(UTC)
        async with environment.database.system() as connection:
            await connection.execute(
                "INSERT INTO container_resource_usage (container_id, namespace_id, timestamp) VALUES ($1, $2, $3)",
                box.id,
                box.namespace_id,
                now,
            )
        assert await told(answers) == [("web", now)]


async def test_the_stream_continues_after_its_listener_was_ended(
    environment: Environment, database: Database
) -> None:
    box = await environment.box()
    async with watched(environment, poll_seconds=0.2) as answers:
        assert await _end_listeners(database) == 1
        now = datetime.now(UTC)
        await environment.usage.store([box.sample(now)])
        assert await told(answers) == [("web", now)]


async def _end_listeners(database: Database) -> int:
    return await _of_listeners(database, "count(pg_terminate_backend(pid))")


async def test_no_connection_is_held_without_a_watcher(environment: Environment, database: Database) -> None:
    async with running(environment) as stream:
        async with stream.watching():
            assert await _listeners(database) == 1

        async def none_left() -> bool:
            return await _listeners(database) == 0

        assert await poll_until(none_left)


async def _listeners(database: Database) -> int:
    return await _of_listeners(database, "count(*)")


async def _of_listeners(database: Database, number: str) -> int:
    async with connection(database.admin_dsn) as admin:
        return int(
            await admin.fetchval(
                f"SELECT {number} FROM pg_stat_activity "
                "WHERE application_name = 'pilothouse-usage-listener' AND datname = current_database()"
            )
        )


@pytest.fixture
def stream(environment: Environment) -> UsageStream:
    """Returns live samples without a task: the test publishes them."""
    return UsageStream(environment.store, render, sign_of_life_seconds=0.05)


WEB, API, FOREIGN = Box(1, 1, "shop", "web"), Box(2, 1, "shop", "api"), Box(3, 2, "bank", "vault")


async def test_a_slow_reader_gets_the_newest_of_each_container(stream: UsageStream) -> None:
    async with aclosing(stream.follow(0, (), EVERYTHING)) as answers:
        for second in range(100):
            stream.publish([stored(WEB, second), stored(API, second)])
        stream.publish([stored(WEB, 100)])
        assert await told(answers) == [
            ("api", START + timedelta(seconds=99)),
            ("web", START + timedelta(seconds=100)),
        ]
        stream.publish([stored(API, 101)])
        assert await told(answers) == [("api", START + timedelta(seconds=101))]


async def test_no_sample_is_sent_twice_or_after_a_newer_one(stream: UsageStream) -> None:
    async with aclosing(stream.follow(0, [stored(WEB, 5)], EVERYTHING)) as answers:
        stream.publish([stored(WEB, 3), stored(WEB, 5), stored(API, 1)])
        assert await told(answers) == [("api", START + timedelta(seconds=1))]
        stream.publish([stored(WEB, 4), stored(API, 1), stored(API, 0), stored(WEB, 6)])
        assert await told(answers) == [("web", START + timedelta(seconds=6))]


async def test_only_samples_that_the_reader_may_see_now_are_sent(stream: UsageStream) -> None:
    visible: list[frozenset[int] | None] = [frozenset({1})]
    async with aclosing(stream.follow(0, (), Interest(lambda: visible[0]))) as answers:
        stream.publish([stored(WEB, 0), stored(FOREIGN, 0)])
        assert await told(answers) == [("web", START)]
        visible[0] = frozenset({2})
        stream.publish([stored(WEB, 1), stored(FOREIGN, 1)])
        assert await told(answers) == [("vault", START + timedelta(seconds=1))]
        visible[0] = None
        stream.publish([stored(API, 2)])
        assert await told(answers) == [("api", START + timedelta(seconds=2))]


@pytest.mark.parametrize(
    ("interest", "names"),
    [
        (Interest(lambda: None, namespace_id=1), ["web", "api"]),
        (Interest(lambda: None, container="vault"), ["vault"]),
        (Interest(lambda: None, namespace_id=2, container="web"), []),
    ],
)
async def test_a_reader_may_select_one_namespace_or_container(
    stream: UsageStream, interest: Interest, names: list[str]
) -> None:
    async with aclosing(stream.follow(0, (), interest)) as answers:
        stream.publish([stored(WEB, 0), stored(API, 0), stored(FOREIGN, 0)])
        # The first response contains samples, or is a sign of life if no sample is selected.
        assert [found.sample.container for found in await anext(answers)] == names


async def test_a_sign_of_life_is_sent_while_idle(stream: UsageStream) -> None:
    async with within(10), aclosing(stream.follow(0, (), EVERYTHING)) as answers:
        assert await anext(answers) == []
        assert await anext(answers) == []
        stream.publish([stored(WEB, 0)])
        assert await told(answers) == [("web", START)]


@virtual_time
async def test_a_period_limits_how_often_a_container_is_sent(stream: UsageStream) -> None:
    """Signs of life are sent during the period, and the newest sample at its end."""
    interest = Interest(lambda: None, period_seconds=0.3)
    async with within(10), aclosing(stream.follow(0, (), interest)) as answers:
        # The period begins when the first sample is sent, which this task only learns later.
        since_first = Stopwatch()
        stream.publish([stored(WEB, 0)])
        assert await told(answers) == [("web", START)]
        stream.publish([stored(WEB, 1)])
        stream.publish([stored(WEB, 2)])
        assert await anext(answers) == []
        assert await told(answers) == [("web", START + timedelta(seconds=2))]
        assert since_first.passed() >= 0.3


@pytest.mark.full
async def test_the_stream_is_reset_after_a_rewind(environment: Environment) -> None:
    """The database gives the same ids again, lower than those that were read."""
    box = await environment.box()
    first_id = "SELECT setval(pg_get_serial_sequence('container_resource_usage', 'id'), $1, false)"
    insert = (
        "INSERT INTO container_resource_usage (container_id, namespace_id, timestamp) VALUES ($1, $2, $3)"
    )
    now = datetime.now(UTC)
    async with running(environment, poll_seconds=0.05) as stream, environment.database.owner() as owner:
        await owner.execute(first_id, 1000)
        async with (
            stream.watching() as position,
            aclosing(stream.follow(position, (), EVERYTHING)) as answers,
        ):
            await environment.usage.store([box.sample(now)])
            assert await told(answers) == [(box.name, now)]
            await owner.execute("DELETE FROM container_resource_usage")
            await owner.execute(first_id, 1)
            stream.reset_after_rewind()
            async with within(10):
                with pytest.raises(Unavailable):
                    await anext(answers)
            async with aclosing(stream.follow(position, (), EVERYTHING)) as again:
                # The sample is not announced: only the poll finds it, by its id.
                later = now + timedelta(seconds=1)
                await poll_until(lambda: settled(stream), what="the place is that of the database")
                await owner.execute(insert, box.id, box.namespace_id, later)
                assert await told(again) == [(box.name, later)]


async def settled(stream: UsageStream) -> bool:
    """Returns whether the stream reads from the beginning of an empty table."""
    return stream._next_id == 1
