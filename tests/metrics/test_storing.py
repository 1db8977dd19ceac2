"""Samples on their way into the database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pilothouse_server.errors import Unavailable
from pilothouse_server.metrics.model import Stored
from pilothouse_server.metrics.operations import UsageStore, roll_up
from pilothouse_server.metrics.tables import USAGE
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.partitions import Partitions
from tests.metrics.environment import DAY, Box, Environment, hours_ago, midnight
from tests.waiting import poll_until, within


def now() -> datetime:
    return datetime.now(UTC)


async def only_row(environment: Environment) -> dict[str, Any]:
    (row,) = await environment.rows("SELECT * FROM container_resource_usage")
    return row


async def count(environment: Environment) -> int:
    (row,) = await environment.rows("SELECT count(*) AS count FROM container_resource_usage")
    return int(row["count"])


async def test_a_sample_is_stored_as_it_is(environment: Environment) -> None:
    box = await environment.box()
    sample = box.sample(
        now(),
        pods=2,
        cpu_cores_used=1.5,
        cpu_cores_request=1.0,
        cpu_cores_limit=2.0,
        memory_bytes_used=300,
        memory_bytes_request=400,
        network_bytes_rx=1,
        network_bytes_tx=2,
        network_packets_rx=3,
        network_packets_tx=4,
        disk_bytes_used=25,
        disk_bytes_total=100,
        filesystem_reads=5,
        filesystem_writes=6,
    )
    await environment.usage.store([sample])
    row = await only_row(environment)
    for name in sample.__struct_fields__:
        if name not in ("pods", "programs"):
            assert row[name] == getattr(sample, name), name
    assert row["metadata"] == '{"pods": 2}'
    assert (row["cpu_usage_percent"], row["memory_usage_percent"], row["disk_usage_percent"]) == (75, 75, 25)


@pytest.mark.parametrize(
    ("request_", "limit", "percent"),
    [
        (None, None, None),
        (0.5, None, 600.0),
        (0.5, 1.5, 200.0),
        (None, 3.0, 100.0),
        (0.0, 0.0, None),
        (2.0, 0.0, 150.0),
        (0.0001, None, 3_000_000.0),
    ],
)
async def test_percentages_refer_to_the_limit_or_else_the_request(
    environment: Environment, request_: float | None, limit: float | None, percent: float | None
) -> None:
    box = await environment.box()
    await environment.usage.store(
        [box.sample(now(), cpu_cores_used=3.0, cpu_cores_request=request_, cpu_cores_limit=limit)]
    )
    assert (await only_row(environment))["cpu_usage_percent"] == percent


async def test_very_large_percentages_can_be_stored(environment: Environment) -> None:
    box = await environment.box()
    await environment.usage.store([box.sample(now(), memory_bytes_used=1 << 62, memory_bytes_request=1)])
    assert float((await only_row(environment))["memory_usage_percent"]) == 9999999999.99


async def test_samples_of_deleted_containers_are_left_out(environment: Environment) -> None:
    box = await environment.box()
    gone = msgspec.structs.replace(box.sample(now()), container_id=box.id + 1000)
    foreign = msgspec.structs.replace(box.sample(now()), namespace_id=box.namespace_id + 1000)
    assert await environment.usage.write([box.sample(now()), gone, foreign]) == Stored(1, gone=2)
    assert await count(environment) == 1


async def test_usage_does_not_wait_for_an_apply_that_changes_its_containers(environment: Environment) -> None:
    box = await environment.box()
    async with environment.database.system() as applying, applying.transaction():
        admit = "SELECT container FROM admit_container_change(NULL, NULL, $1, $2, true)"
        assert await applying.fetchval(admit, box.namespace, box.name)
        async with within(10):
            assert await environment.usage.write([box.sample(now())]) == Stored(1)


async def test_samples_lock_their_containers_in_the_order_of_a_deleted_namespace(
    environment: Environment,
) -> None:
    """Otherwise each of the two would wait for a container that the other has locked."""
    low, high = await environment.box(name="low"), await environment.box(name="high")
    lock = "SELECT id FROM containers WHERE id = $1 FOR UPDATE NOWAIT"
    async with environment.database.system() as deleting, deleting.transaction():
        assert await deleting.fetchval(lock, low.id)
        storing = asyncio.create_task(environment.usage.write([high.sample(now()), low.sample(now())]))
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        await poll_until(lambda: environment.rows(waiting), lambda rows: len(rows) == 1)
        assert await deleting.fetchval(lock, high.id)
    async with within(10):
        assert await storing == Stored(2)


async def test_samples_of_times_without_a_partition_are_left_out(environment: Environment) -> None:
    box = await environment.box()
    samples = [
        box.sample(now()),
        box.sample(now() - timedelta(days=400)),
        box.sample(now() + timedelta(days=400)),
        box.sample(now() + timedelta(minutes=10)),
    ]
    assert await environment.usage.write(samples) == Stored(1, out_of_range=3)
    assert await count(environment) == 1
    assert await environment.usage.write(samples[1:]) == Stored(0, out_of_range=3)


async def test_a_partition_dropped_just_before_costs_only_its_samples(environment: Environment) -> None:
    box = await environment.box()
    old = midnight(5)
    await environment.partitions_since(old)
    assert await environment.usage.write([box.sample(old)]) == Stored(1)
    partitions = Partitions(environment.store.database.maintenance)
    assert await partitions.drop_older(USAGE, midnight(2))
    # The range that the store remembers still contains that day.
    assert await environment.usage.write([box.sample(old), box.sample(now())]) == Stored(1, out_of_range=1)


async def test_invalid_figures_cost_only_their_sample(environment: Environment) -> None:
    box = await environment.box()
    await environment.usage.store(
        [
            box.sample(now(), cpu_cores_used=float("nan")),
            box.sample(now(), cpu_cores_used=1e9),
            box.sample(now(), memory_bytes_used=-1),
            box.sample(now(), network_bytes_rx=1 << 70),
            box.sample(now()),
        ]
    )
    assert await count(environment) == 1


async def test_more_samples_than_a_batch_are_all_stored(environment: Environment) -> None:
    box = await environment.box()
    start = hours_ago(1)
    await environment.usage.store(
        [box.sample(start + timedelta(milliseconds=index)) for index in range(5001)]
    )
    assert await count(environment) == 5001
    assert environment.usage.pending == 0


async def test_samples_wait_while_the_database_is_unavailable(environment: Environment) -> None:
    box = await environment.box()
    usage = UsageStore(environment.store, pending_samples=3)
    start = hours_ago(0.5)
    samples = [box.sample(start + timedelta(seconds=index)) for index in range(5)]
    there = environment.store.database.system
    nowhere = Engines.connect(Settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere"))
    environment.store.database.system = nowhere.system
    for sample in samples[:4]:
        with pytest.raises(Unavailable):
            await usage.store([sample])
    # The store discarded the oldest sample, because three fit.
    assert usage.pending == 3
    environment.store.database.system = there
    await usage.store([])
    assert usage.pending == 0
    rows = await environment.rows("SELECT timestamp FROM container_resource_usage ORDER BY timestamp")
    assert [row["timestamp"] for row in rows] == [sample.timestamp for sample in samples[1:4]]
    await nowhere.close()


async def test_a_batch_with_an_uncertain_commit_is_not_stored_twice(environment: Environment) -> None:
    box = await environment.box()
    samples = [box.sample(hours_ago(0.1)), box.sample(hours_ago(0.2))]
    await environment.usage.write(samples[:1])
    assert (await environment.usage.write(samples, again=True)).stored == 1
    assert await count(environment) == 2


async def test_a_container_may_be_deleted_while_its_samples_are_stored(environment: Environment) -> None:
    """The batch does not fail, and nothing is stored for the deleted container."""
    boxes = [await environment.box(name=f"box{index}") for index in range(20)]

    async def delete(box: Box) -> None:
        async with environment.database.system() as connection:
            await connection.execute("DELETE FROM containers WHERE id = $1", box.id)

    async def record(number: int) -> Stored:
        at = now() - timedelta(seconds=number)

        async def stored() -> Stored | None:
            """Returns None if containers were deleted faster than the batch was written.

            The caller then repeats the call.
            """
            try:
                return await environment.usage.write([box.sample(at) for box in boxes])
            except Unavailable:
                return None

        kept = await poll_until(stored)
        assert kept is not None
        return kept

    results = await asyncio.gather(*(record(number) for number in range(4)), *map(delete, boxes[:10]))
    kept = [result for result in results if result is not None]
    assert all(10 <= stored.stored <= 20 and stored.stored + stored.gone == 20 for stored in kept)
    rows = await environment.rows("SELECT DISTINCT container_id FROM container_resource_usage ORDER BY 1")
    assert [row["container_id"] for row in rows] == [box.id for box in boxes[10:]]


async def test_late_samples_of_two_writers_are_both_rolled_up(environment: Environment) -> None:
    box = await environment.box()
    start = midnight(1)
    await environment.usage.write([box.sample(start)])
    await roll_up(environment.store, start + DAY + timedelta(minutes=3))
    await asyncio.gather(
        *(environment.usage.write([box.sample(start + timedelta(minutes=minute))]) for minute in range(1, 9))
    )
    (row,) = await environment.rows("SELECT samples FROM container_usage_daily")
    assert row["samples"] == 9
