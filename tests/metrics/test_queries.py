"""How a time range is divided into steps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.errors import InvalidArgument
from pilothouse_server.flowcontrol.classes import is_wide
from pilothouse_server.metrics.model import Point, UsageSubject
from pilothouse_server.metrics.operations import queries, rows_of_work, steps_of
from pilothouse_server.metrics.repository import series
from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.paging import PageRequest

DAY = 86400
NOW = datetime(2025, 6, 1, 12, 34, 56, 789, tzinfo=UTC)
times = st.datetimes(timezones=st.just(UTC))
lengths = st.integers(1, 366 * 86400)


def seconds(moment: datetime) -> Fraction:
    """Returns the exact seconds since 1970: a float cannot represent microseconds after some centuries."""
    return Fraction((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), 1_000_000)


@given(times, times, lengths)
def test_steps_are_whole_and_contain_the_range(start: datetime, end: datetime, length: int) -> None:
    try:
        steps = steps_of(NOW, start, end, timedelta(seconds=length))
    except InvalidArgument as error:
        (violation,) = error.violations
        if violation.field == "start_time":
            assert seconds(start) // 1 >= seconds(end)
        else:
            assert violation.field == "step"
            assert (seconds(end) - seconds(start)) / length > 11_000 - 2
        return
    assert steps.step == length
    assert steps.start % length == steps.end % length == 0
    assert 1 <= steps.count <= 11_000
    assert steps.start <= seconds(start) < steps.start + length
    assert steps.end - length < seconds(end) <= steps.end


def test_the_default_range_is_the_last_hour() -> None:
    steps = steps_of(NOW, None, None, None)
    assert steps.step == 60
    assert datetime.fromtimestamp(steps.end, UTC) == datetime(2025, 6, 1, 12, 35, tzinfo=UTC)
    assert 3600 <= steps.end - steps.start <= 3660


@given(st.integers(1, 400 * 86400))
def test_the_default_step_makes_about_a_hundred_steps(range_seconds: int) -> None:
    steps = steps_of(NOW, NOW - timedelta(seconds=range_seconds), NOW, None)
    assert steps.step >= 15
    assert steps.count <= 103


@given(st.integers(100 * 1800 + 1, 400 * 86400))
def test_a_default_step_over_half_an_hour_uses_roll_ups(range_seconds: int) -> None:
    steps = steps_of(NOW, NOW - timedelta(seconds=range_seconds), NOW, None)
    assert steps.step % 3600 == 0


@pytest.mark.parametrize(
    ("start", "end", "step", "field"),
    [
        (NOW, NOW - timedelta(seconds=1), None, "start_time"),
        (NOW + timedelta(seconds=2), None, None, "start_time"),
        (None, None, timedelta(0), "step"),
        (None, None, timedelta(seconds=-5), "step"),
        (None, None, timedelta(milliseconds=1500), "step"),
        (None, None, timedelta(days=367), "step"),
        (NOW - timedelta(seconds=11_001), NOW, timedelta(seconds=1), "step"),
    ],
)
def test_an_invalid_range_or_step_is_refused_by_its_field(
    start: datetime | None, end: datetime | None, step: timedelta | None, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        steps_of(NOW, start, end, step)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_eleven_thousand_steps_are_not_too_many() -> None:
    end = datetime(2025, 6, 1, tzinfo=UTC)
    assert steps_of(NOW, end - timedelta(seconds=11_000), end, timedelta(seconds=1)).count == 11_000


@pytest.mark.parametrize(
    ("range_seconds", "step", "containers", "wide"),
    [
        # One container: the last hour, and a month by the hour.
        (None, 0, 1, False),
        (3600, 60, 1, False),
        (30 * DAY, 3600, 1, False),
        # These steps need the samples of many hours.
        (14 * DAY, 1800, 1, True),
        (14 * DAY, 14 * DAY - 1, 1, True),
        # A page of many containers.
        (None, 0, 50, True),
        (30 * DAY, 3600, 50, True),
        (30 * DAY, DAY, 10, False),
        (366 * DAY, DAY, 50, True),
        (DAY, DAY, 50, False),
        (DAY, DAY, 101, True),
        # A request over a limit is refused later.
        (10**18, 1, 10**9, True),
        (-5, -7, -3, False),
    ],
)
def test_a_page_of_many_points_or_samples_is_wide(
    range_seconds: int | None, step: int, containers: int, wide: bool
) -> None:
    assert is_wide(rows_of_work(range_seconds, step, containers)) is wide


def test_usage_of_a_program_needs_samples_at_every_step() -> None:
    assert is_wide(rows_of_work(14 * DAY, 3600, 1, by_sample=True))
    assert not is_wide(rows_of_work(14 * DAY, 3600, 1))


async def test_the_sorting_of_many_points_lets_other_tasks_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each share is used up immediately.
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    count, turns = 40_000, 0
    points = [Point(1 + at % 2, count - at, 1, 0.0, 0.0, 0, 0, 0, 0, 0) for at in range(count)]

    async def subjects(*_arguments: Any, **_named: Any) -> Any:
        return [UsageSubject(number, "", "", "") for number in (1, 2)], None

    async def parts(*_arguments: Any) -> Any:
        return points

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(series, "subjects", subjects)
    monkeypatch.setattr(queries, "_parts", parts)
    other = asyncio.create_task(others())
    page, steps = PageRequest(key=b""), steps_of(NOW, None, None, None)
    nothing: Any = None
    found, _ = await queries.usage(
        nothing, page, steps, namespace_id=None, container="", visible=None, form=1
    )
    await cancel_and_wait(other)
    assert turns >= 10
    assert [[point.at for point in shown] == sorted(point.at for point in shown) for _, shown in found] == [
        True,
        True,
    ]
    assert sum(len(shown) for _, shown in found) == count
