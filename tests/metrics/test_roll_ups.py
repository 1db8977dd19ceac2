"""Roll-ups equal an aggregation of all samples, whenever samples arrive and roll-ups run."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_server.metrics import messages
from pilothouse_server.metrics.model import Point, StepSizes, UsageSample
from pilothouse_server.metrics.operations import pack_days, roll_up, roll_ups, usage
from pilothouse_server.metrics.repository import series
from pilothouse_server.store.paging import PageRequest
from tests.metrics.environment import DAY, HOUR, Box, Environment, midnight

DAYS = 4
QUARTER = 900
SECONDS_AFTER = 3 * 60


@dataclass(frozen=True)
class Measured:
    """One generated sample: its container, its time (seconds since the first day), and its values."""

    box: int
    at: int
    cpu: int
    memory: int
    received: int | None
    sent: int | None
    pods: int

    def sample(self, boxes: Sequence[Box], start: datetime) -> UsageSample:
        return boxes[self.box].sample(
            start + timedelta(seconds=self.at),
            cpu_cores_used=self.cpu / 10_000,
            memory_bytes_used=self.memory,
            network_bytes_rx=self.received,
            network_bytes_tx=self.sent,
            disk_bytes_used=self.memory // 2,
            pods=self.pods,
        )


counter = st.none() | st.integers(0, 1 << 40)
# Samples within few hours are more often in the same hour than samples within many.
moment = st.integers(0, 6 * 3600) | st.integers(0, DAYS * 86400 - 1)
measured = st.builds(
    Measured,
    st.integers(0, 2),
    moment,
    st.integers(0, 640_000),
    st.integers(0, 1 << 40),
    counter,
    counter,
    st.integers(1, 3),
)
# Batches, each with the hour, counted from the first day, at which roll-ups run after it, and whether days are packed.
history = st.lists(
    st.tuples(
        st.lists(measured, min_size=1, max_size=12), st.none() | st.integers(0, DAYS * 24), st.booleans()
    ),
    min_size=1,
    max_size=6,
)


def expected(
    samples: Sequence[UsageSample], start: datetime, step: int
) -> dict[tuple[int, int], dict[str, Any]]:
    """Computes the aggregation a second time: (container, beginning of the step) → the shown values."""
    found: defaultdict[tuple[int, int], dict[str, Any]] = defaultdict(
        lambda: {"cpu": [], "memory": [], "rx": 0, "tx": 0, "disk": 0}
    )
    before: dict[tuple[int, str], UsageSample] = {}
    for sample in sorted(samples, key=lambda each: (each.container_id, each.timestamp)):
        at = int(sample.timestamp.timestamp())
        bin_ = found[sample.container_id, at - at % step]
        bin_["cpu"].append(sample.cpu_cores_used)
        bin_["memory"].append(sample.memory_bytes_used)
        bin_["disk"] = max(bin_["disk"], sample.disk_bytes_used)
        for name in ("rx", "tx"):
            value = getattr(sample, f"network_bytes_{name}")
            if value is None:
                continue
            last = before.get((sample.container_id, name))
            if last is not None and sample.timestamp - last.timestamp <= DAY:
                shown = getattr(last, f"network_bytes_{name}")
                if value >= shown:
                    bin_[name] += value - shown
                elif sample.pods == 1:
                    bin_[name] += value
            before[sample.container_id, name] = sample
    return dict(found)


def check(points: Sequence[Point], wanted: dict[tuple[int, int], dict[str, Any]]) -> None:
    """Checks that the points are the wanted ones; means of means are rounded twice."""
    assert {(point.container_id, point.at) for point in points} == set(wanted)
    for point in points:
        bin_ = wanted[point.container_id, point.at]
        assert point.samples == len(bin_["cpu"])
        assert point.cpu_cores_avg == pytest.approx(sum(bin_["cpu"]) / len(bin_["cpu"]), abs=0.0002)
        assert point.cpu_cores_max == pytest.approx(max(bin_["cpu"]), abs=1e-9)
        assert abs(point.memory_bytes_avg - sum(bin_["memory"]) / len(bin_["memory"])) <= 2
        assert point.memory_bytes_max == max(bin_["memory"])
        assert (point.network_bytes_rx, point.network_bytes_tx) == (bin_["rx"], bin_["tx"])
        assert point.disk_bytes_max == bin_["disk"]


async def stored_points(environment: Environment, table: str) -> list[Point]:
    """Returns the rows of a roll-up table as points."""
    rows = await environment.rows(
        f"SELECT container_id, extract(epoch FROM bucket)::bigint, samples, cpu_cores_avg::float8, "
        f"cpu_cores_max::float8, memory_bytes_avg, memory_bytes_max, network_bytes_rx, network_bytes_tx, "
        f"disk_bytes_max FROM {table}"
    )
    return [Point(*row.values()) for row in rows]


async def asked_points(environment: Environment, step: int, boxes: Sequence[Box]) -> list[Point]:
    """Returns the points of a query over all days."""
    start = int(midnight(DAYS).timestamp())
    steps = StepSizes(start - start % step, start + (DAYS + 1) * 86400, step)
    async with environment.store.system_read() as transaction:
        return await series.points(transaction, steps, [box.id for box in boxes])


async def shown_points(environment: Environment, boxes: Sequence[Box], lower: int, upper: int) -> list[Point]:
    """Returns the points of a response by the hour.

    The range begins and ends `lower` and `upper` hours after the first day's start.
    """
    start = int(midnight(DAYS).timestamp())
    steps = StepSizes(start + lower * 3600, start + upper * 3600, 3600)
    names = {box.id: box.name for box in boxes}
    found = []
    async with environment.store.system_read() as transaction:
        answered, _ = await usage(
            transaction,
            PageRequest(key=b"k" * 32, page_size=100),
            steps,
            namespace_id=None,
            container="",
            visible=None,
            form=messages.POINTS.form,
        )
    for subject, parts in answered:
        pieces = [*messages.pieces_of_series(subject, parts, steps)]
        (shown,) = pb.QueryUsageResponse.FromString(messages.series(pieces)).series
        assert shown.container == names[subject.container_id]
        times = [point.timestamp.seconds for point in shown.points]
        assert times == sorted(set(times))
        for point in shown.points:
            values = [getattr(point, name) for name in Point.__struct_fields__[2:]]
            found.append(Point(subject.container_id, point.timestamp.seconds, *values))
    return found


def within(
    wanted: dict[tuple[int, int], dict[str, Any]], lower: int, upper: int
) -> dict[tuple[int, int], dict[str, Any]]:
    """Returns the steps of a range, given in hours after the first day's start."""
    start = int(midnight(DAYS).timestamp())
    return {
        key: value for key, value in wanted.items() if start + lower * 3600 <= key[1] < start + upper * 3600
    }


hours = st.integers(-3, DAYS * 24 + 3)


@pytest.mark.full
@given(history, st.tuples(hours, hours).filter(lambda pair: pair[0] < pair[1]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_roll_ups_equal_an_aggregation_of_all_samples(
    environment: Environment, batches: list[tuple[list[Measured], int | None, bool]], range_: tuple[int, int]
) -> None:
    start = midnight(DAYS)
    await environment.partitions_since(start)
    await environment.empty()
    boxes = [await _box(environment, index) for index in range(3)]
    samples: list[UsageSample] = []
    taken: set[tuple[int, int]] = set()
    for batch, hour, pack in batches:
        # Two samples of one container with the same time have no order.
        fresh = [item for item in batch if (item.box, item.at) not in taken]
        fresh = list({(item.box, item.at): item for item in fresh}.values())
        taken |= {(item.box, item.at) for item in fresh}
        new = [item.sample(boxes, start) for item in fresh]
        if new:
            stored = await environment.usage.write(new)
            assert stored.stored == len(new)
        samples += new
        if hour is not None:
            await roll_up(environment.store, start + timedelta(hours=hour, seconds=SECONDS_AFTER))
        if pack:
            await pack_days(environment.store, messages.POINTS)
    by_the_hour = expected(samples, start, 3600)
    check(await asked_points(environment, 3600, boxes), by_the_hour)
    check(await shown_points(environment, boxes, *range_), within(by_the_hour, *range_))
    await roll_up(environment.store, start + timedelta(days=DAYS, seconds=SECONDS_AFTER))
    await pack_days(environment.store, messages.POINTS)
    assert await unpacked(environment) == 0
    check(await shown_points(environment, boxes, 0, DAYS * 24), by_the_hour)
    check(await shown_points(environment, boxes, *range_), within(by_the_hour, *range_))

    check(await stored_points(environment, "container_usage_hourly"), expected(samples, start, 3600))
    check(await stored_points(environment, "container_usage_daily"), expected(samples, start, 86400))
    for step in (QUARTER, 3600, 6 * 3600, 86400, 2 * 86400):
        check(await asked_points(environment, step, boxes), expected(samples, start, step))


async def unpacked(environment: Environment) -> int:
    """Returns the number of complete days that are not packed."""
    (found,) = await environment.rows(
        "SELECT count(*) AS count FROM container_usage_days WHERE format = 0 AND day < $1", midnight(0)
    )
    return int(found["count"])


async def _box(environment: Environment, index: int) -> Box:
    """Returns the container with this number, which the first example creates and all use."""
    found = await environment.rows(
        "SELECT c.id, c.namespace_id FROM containers AS c WHERE c.name = $1", f"box{index}"
    )
    if not found:
        return await environment.box(name=f"box{index}")
    return Box(found[0]["id"], found[0]["namespace_id"], "shop", f"box{index}")


async def test_an_hour_is_rolled_up_once_it_has_settled(environment: Environment) -> None:
    box = await environment.box()
    # Not the last hour of its day, because the day would be rolled up with that one.
    hour = midnight(1) + 12 * HOUR
    await environment.usage.write([box.sample(hour + timedelta(minutes=10))])
    assert await roll_up(environment.store, hour + HOUR + timedelta(seconds=30)) == 0
    assert await roll_up(environment.store, hour + HOUR + timedelta(seconds=SECONDS_AFTER)) == 1
    assert [row["bucket"] for row in await environment.rows("SELECT bucket FROM container_usage_hourly")] == [
        hour
    ]


async def test_a_repeated_roll_up_changes_nothing(environment: Environment) -> None:
    box = await environment.box()
    start = midnight(1)
    await environment.usage.write([box.sample(start + minutes) for minutes in _every(20, 60)])
    now = start + DAY + timedelta(seconds=SECONDS_AFTER)
    assert await roll_up(environment.store, now) == 20 + 1
    before = await stored_points(environment, "container_usage_hourly")
    assert await roll_up(environment.store, now) == 0
    assert await stored_points(environment, "container_usage_hourly") == before


async def test_a_roll_up_continues_where_another_was_interrupted(environment: Environment) -> None:
    box = await environment.box()
    start = midnight(1)
    await environment.usage.write([box.sample(start + minutes) for minutes in _every(10, 60)])
    async with environment.store.system_write("test") as transaction:
        await series.roll(transaction, "hour", int(start.timestamp()))
    assert await roll_up(environment.store, start + timedelta(hours=11)) == 9
    assert len(await stored_points(environment, "container_usage_hourly")) == 10


async def test_roll_ups_are_deleted_with_their_container(environment: Environment) -> None:
    box = await environment.box()
    start = midnight(1)
    await environment.usage.write([box.sample(start)])
    await roll_up(environment.store, start + DAY + timedelta(seconds=SECONDS_AFTER))
    assert await stored_points(environment, "container_usage_daily")
    async with environment.database.system() as connection:
        await connection.execute("DELETE FROM containers WHERE id = $1", box.id)
    assert not await stored_points(environment, "container_usage_hourly")
    assert not await stored_points(environment, "container_usage_daily")


def _every(count: int, minutes: int) -> list[timedelta]:
    return [timedelta(minutes=minutes) * index for index in range(count)]


def test_the_second_aggregation_handles_a_counter_reset() -> None:
    box = Box(1, 1, "shop", "web")
    start = datetime(2025, 1, 1, tzinfo=UTC)
    values = [100, 150, 30, 40]
    samples = [
        box.sample(start + timedelta(seconds=index), network_bytes_rx=value, disk_bytes_used=0)
        for index, value in zip(itertools.count(), values)
    ]
    assert expected(samples, start, 3600)[1, int(start.timestamp())]["rx"] == 50 + 30 + 10


class Ahead:
    """A clock that is three hours ahead."""

    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + 3 * HOUR


async def test_a_clock_that_is_ahead_rolls_up_no_hour_before_its_end(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await environment.empty()
    box = await environment.box(name="early")
    await environment.usage.write([box.sample(datetime.now(UTC))])
    monkeypatch.setattr(roll_ups, "datetime", Ahead)
    assert await roll_up(environment.store) == 0
    assert await environment.rows("SELECT 1 FROM container_usage_hourly") == []
