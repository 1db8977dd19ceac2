"""Days of usage in one row each: never older than the hours that they consist of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.metrics import messages
from pilothouse_server.metrics.model import PackedDay, Point, StepSizes, UsageSubject
from pilothouse_server.metrics.operations import Rendering, pack_days, packing, roll_up
from pilothouse_server.metrics.repository import days
from tests.backup.copies import back_up, empty_database, restore
from tests.metrics.environment import DAY, HOUR, Box, Environment, environment_of, midnight
from tests.waiting import poll_until, within

FORM = messages.POINTS.form
_SETTLED = timedelta(minutes=3)
_PACKED = "SELECT day, hours FROM container_usage_days WHERE format > 0 ORDER BY container_id, day"


async def rolled_day(environment: Environment, days_ago: int = 2) -> tuple[Box, datetime]:
    """Creates a container with a sample of a quarter of a core in each hour of a day, and rolls the day up."""
    box, start = await environment.box(), midnight(days_ago)
    await environment.partitions_since(start)
    await environment.usage.write([box.sample(start + hour * HOUR) for hour in range(24)])
    await roll_up(environment.store, start + DAY + _SETTLED)
    return box, start


async def parts(
    environment: Environment, box: Box, start: datetime, hours: int = 24, form: int = FORM
) -> list[Any]:
    """Returns the result of a query by the hour for a container."""
    at = int(start.timestamp())
    async with environment.store.system_read() as transaction:
        found = await days.by_the_hour(transaction, StepSizes(at, at + hours * 3600, 3600), [box.id], form)
    return sorted(found, key=lambda part: part.at)


async def cores(environment: Environment, box: Box, start: datetime) -> list[float]:
    """Returns the most cores of each hour of a day, as a response shows them."""
    at = int(start.timestamp())
    found = await parts(environment, box, start)
    shown = messages.series([*messages.pieces_of_series(SUBJECT, found, StepSizes(at, at + 86400, 3600))])
    (series,) = pb.QueryUsageResponse.FromString(shown).series
    return [point.cpu_cores_max for point in series.points]


SUBJECT = UsageSubject(1, "uid", "shop", "web")
QUARTERS = [0.25] * 24
# A late sample in the third hour.
LATE = [0.25, 0.25, 2.0, *[0.25] * 21]


def late(box: Box, start: datetime) -> list[Any]:
    return [box.sample(start + 2 * HOUR + timedelta(minutes=7), cpu_cores_used=2.0)]


async def test_a_complete_day_is_packed_into_one_row(environment: Environment) -> None:
    box, start = await rolled_day(environment)
    assert [type(part) for part in await parts(environment, box, start)] == [Point] * 24
    assert await pack_days(environment.store, messages.POINTS) == 1
    (packed,) = await parts(environment, box, start)
    assert (packed.container_id, packed.at, packed.hours) == (box.id, int(start.timestamp()), (1 << 24) - 1)
    assert await cores(environment, box, start) == QUARTERS
    assert await pack_days(environment.store, messages.POINTS) == 0


async def test_an_incomplete_day_is_not_packed(environment: Environment) -> None:
    box, start = await environment.box(), midnight(1)
    await environment.usage.write([box.sample(start), box.sample(start + 2 * HOUR)])
    await roll_up(environment.store, start + 5 * HOUR)
    assert await pack_days(environment.store, messages.POINTS) == 0
    await roll_up(environment.store, start + DAY + _SETTLED)
    assert await pack_days(environment.store, messages.POINTS) == 1
    assert await environment.rows(_PACKED) == [{"day": start, "hours": 0b101}]


async def test_a_late_sample_is_shown_immediately_and_packed_again(environment: Environment) -> None:
    box, start = await rolled_day(environment)
    await pack_days(environment.store, messages.POINTS)
    await environment.usage.write(late(box, start))
    assert await environment.rows(_PACKED) == []
    assert await cores(environment, box, start) == LATE
    assert await pack_days(environment.store, messages.POINTS) == 1
    assert len(await parts(environment, box, start)) == 1
    assert await cores(environment, box, start) == LATE


@pytest.mark.full
async def test_without_the_triggers_an_old_day_would_be_shown(environment: Environment) -> None:
    """Controls the test above, and the aggregation in `test_roll_ups`."""
    box, start = await rolled_day(environment)
    await pack_days(environment.store, messages.POINTS)
    async with environment.database.owner() as owner:
        await owner.execute("ALTER TABLE container_usage_hourly DISABLE TRIGGER USER")
    await environment.usage.write(late(box, start))
    assert await cores(environment, box, start) == QUARTERS


@pytest.mark.parametrize("range_", [(0, 24), (5, 24), (0, 7), (5, 7), (-3, 1), (23, 30)])
async def test_part_of_a_packed_day_can_be_queried(environment: Environment, range_: tuple[int, int]) -> None:
    box, start = await environment.box(), midnight(3)
    await environment.partitions_since(start)
    await environment.usage.write(
        [box.sample(start + hour * HOUR, cpu_cores_used=float(hour)) for hour in range(0, 24, 2)]
    )
    await roll_up(environment.store, start + DAY + _SETTLED)
    await pack_days(environment.store, messages.POINTS)
    lower, upper = range_
    at = int(start.timestamp())
    found = await parts(environment, box, start + lower * HOUR, upper - lower)
    assert [type(part) for part in found] == [PackedDay]
    steps = StepSizes(at + lower * 3600, at + upper * 3600, 3600)
    shown = messages.series([*messages.pieces_of_series(SUBJECT, found, steps)])
    (series,) = pb.QueryUsageResponse.FromString(shown).series
    wanted = [hour for hour in range(0, 24, 2) if lower <= hour < upper]
    assert [point.cpu_cores_max for point in series.points] == wanted


async def test_the_length_of_every_point_fits_one_byte() -> None:
    longest = Point(1, (1 << 33) - 1, (1 << 31) - 1, 1e9, 1e9, *[(1 << 63) - 1] * 5)
    rendered = messages.POINTS.render([longest])
    assert len(rendered) == 2 + rendered[1]
    # A day of such points can also be stored.
    assert 24 * len(rendered) <= 4096


async def test_bytes_of_another_release_are_not_read(environment: Environment) -> None:
    box, start = await rolled_day(environment)
    await pack_days(environment.store, messages.POINTS)
    newer = Rendering(FORM + 1, lambda points: b"".join(b"\x22\x01\x00" for _ in points))
    assert [type(part) for part in await parts(environment, box, start, form=newer.form)] == [Point] * 24
    assert await pack_days(environment.store, newer) == 1
    # This release does not read what the newer one packed, and does not pack it again.
    assert await cores(environment, box, start) == QUARTERS
    assert await pack_days(environment.store, messages.POINTS) == 0


async def test_days_are_deleted_with_their_hours(environment: Environment) -> None:
    box, start = await rolled_day(environment)
    await environment.usage.write([box.sample(start + DAY)])
    await roll_up(environment.store, start + DAY + HOUR + _SETTLED)
    await pack_days(environment.store, messages.POINTS)
    async with environment.database.system() as system:
        await system.execute("DELETE FROM container_usage_hourly WHERE bucket < $1", start + 12 * HOUR)
    assert len(await parts(environment, box, start)) == 12
    await pack_days(environment.store, messages.POINTS)
    assert await environment.rows(_PACKED) == [{"day": start, "hours": 0xFFF000}]
    async with environment.database.system() as system:
        await system.execute("DELETE FROM container_usage_hourly WHERE bucket < $1", start + DAY)
    assert await parts(environment, box, start) == []
    assert await pack_days(environment.store, messages.POINTS) == 1
    assert await environment.rows("SELECT day FROM container_usage_days") == [{"day": start + DAY}]


async def test_days_are_deleted_with_their_container(environment: Environment) -> None:
    box, _ = await rolled_day(environment)
    await pack_days(environment.store, messages.POINTS)
    async with environment.database.system() as system:
        await system.execute("DELETE FROM containers WHERE id = $1", box.id)
    assert await environment.rows("SELECT FROM container_usage_days") == []


async def test_many_days_are_packed_in_steps_and_a_run_is_bounded(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_DAYS_AT_ONCE", 2)
    monkeypatch.setattr(packing, "_DAYS_A_RUN", 5)
    start = midnight(2)
    await environment.partitions_since(start)
    for index in range(8):
        box = await environment.box(name=f"box{index}")
        await environment.usage.write([box.sample(start)])
    await roll_up(environment.store, start + DAY + _SETTLED)
    assert await pack_days(environment.store, messages.POINTS) == 6
    assert await pack_days(environment.store, messages.POINTS) == 2
    assert await pack_days(environment.store, messages.POINTS) == 0


class Packing:
    """A run that has read the hours of a day and is stopped before it writes the day."""

    def __init__(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        self._environment = environment
        self._has_read, self._goes_on = asyncio.Event(), asyncio.Event()
        pack = days.pack

        async def held(*arguments: Any) -> None:
            self._has_read.set()
            await self._goes_on.wait()
            await pack(*arguments)

        monkeypatch.setattr(days, "pack", held)

    async def beside(self, write: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Writes while the run is stopped, and lets the run continue once that is done or waits for a lock."""
        running = asyncio.create_task(pack_days(self._environment.store, messages.POINTS))
        await self._has_read.wait()
        writing = asyncio.create_task(write())

        async def is_done_or_waits() -> bool:
            waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return writing.done() or (await self._environment.rows(waits))[0]["n"] > 0

        await poll_until(is_done_or_waits, seconds=10)
        self._goes_on.set()
        await asyncio.gather(running, writing)


async def test_an_hour_written_while_its_day_is_packed_is_not_lost(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, start = await rolled_day(environment)
    async with within(30):
        await Packing(environment, monkeypatch).beside(lambda: environment.usage.write(late(box, start)))
    assert await cores(environment, box, start) == LATE


@pytest.mark.full
async def test_a_run_without_locks_would_lose_a_written_hour(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls the test above."""
    unlocked = str(days._UNPACKED).replace("FOR UPDATE SKIP LOCKED", "")
    monkeypatch.setattr(days, "_UNPACKED", text(unlocked))
    box, start = await rolled_day(environment)
    async with within(30):
        await Packing(environment, monkeypatch).beside(lambda: environment.usage.write(late(box, start)))
    assert await cores(environment, box, start) == QUARTERS


@pytest.mark.parametrize("change", ["cpu_cores_max = 2.0", None])
async def test_a_day_whose_hours_are_being_written_is_left_alone(
    environment: Environment, change: str | None
) -> None:
    """A transaction that has not committed yet has changed or deleted an hour."""
    box, start = await rolled_day(environment)
    hour = "container_usage_hourly", "WHERE bucket = $1", start + 2 * HOUR
    statement = f"UPDATE {hour[0]} SET {change} {hour[1]}" if change else f"DELETE FROM {hour[0]} {hour[1]}"
    async with environment.database.system() as system:
        changing = system.transaction()
        await changing.start()
        await system.execute(statement, hour[2])
        assert await pack_days(environment.store, messages.POINTS) == 0
        await changing.commit()
    assert await pack_days(environment.store, messages.POINTS) == 1
    assert await cores(environment, box, start) == (LATE if change else QUARTERS[1:])


async def test_days_of_a_restored_database_continue_from_its_content(
    environment: Environment, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The samples after the backup are lost with their hours and days, and may be sent again."""
    box, start = await rolled_day(environment, days_ago=3)
    await pack_days(environment.store, messages.POINTS)
    backup = await back_up(environment.database, tmp_path)
    following = [box.sample(start + DAY + hour * HOUR, cpu_cores_used=hour / 8) for hour in range(24)]

    async def follow(there: Environment) -> list[float]:
        await there.usage.write(following)
        await roll_up(there.store, start + 2 * DAY + _SETTLED)
        assert await pack_days(there.store, messages.POINTS) == 1
        return await cores(there, box, start + DAY)

    shown = await follow(environment)
    assert shown == [hour / 8 for hour in range(24)]
    async with empty_database(postgres) as empty:
        await restore(backup.path, empty)
        async with environment_of(empty) as restored:
            assert await cores(restored, box, start) == QUARTERS
            assert [row["day"] for row in await restored.rows(_PACKED)] == [start]
            # Time has passed: a roll-up in between must not count the lost hours as rolled up.
            assert await roll_up(restored.store, start + 2 * DAY + _SETTLED) == 0
            assert await follow(restored) == shown
            assert await restored.rows(_PACKED) == await environment.rows(_PACKED)
            await restored.usage.write(late(box, start))
            assert await cores(restored, box, start) == LATE
