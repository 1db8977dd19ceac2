"""CronJobs: as recorded, and by their documented rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.cron_schedule import parse_schedule
from pilothouse_simulator.values.resources import CRON_JOBS, JOBS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, check, replay
from tests.simulator.workloads import (
    change,
    condition,
    container,
    cron_job,
    exists,
    poll_cluster,
    run_cron_job,
    stored,
)
from tests.virtual_time import virtual_time

JsonObject = dict[str, Any]

_RUNS = "23-cronjob"
# A script that the simulated programs do not support.
_LOOP = "trap exit TERM; i=0; while [ $i -lt 80 ]; do sleep 1; i=$((i+1)); done"


@pytest.mark.full
@virtual_time
async def test_cron_jobs_are_as_recorded() -> None:
    options = Options(
        varying=NODE_VALUES,
        names={_LOOP: "trap exit TERM; sleep 80"},
        skip=frozenset({3}),
        read_deadline_seconds=0.1,
        stream_deadline_seconds=0.01,
    )
    # The clock starts at the recorded time, because the names of Jobs contain the minute. The timings are slow, because
    # the recorded machine was busy.
    slowness = {"sandbox": 13.0, "notice": 4.0, "remove": 8.0}
    ahead = (datetime(2026, 11, 29, 23, 53, 19, 500_000, UTC) - datetime.now(UTC)).total_seconds()
    async with recorded_cluster(speed=8, ahead_seconds=ahead, **slowness) as cluster:
        differences = await replay(cluster, _RUNS, options)
    check(_RUNS, differences)


def _jobs(cluster: SimulatedCluster) -> list[JsonObject]:
    return cluster.store.list(JOBS, "default")


def _is_complete(cluster: SimulatedCluster, name: str) -> bool:
    return exists(cluster, JOBS, name) and bool(condition(stored(cluster, JOBS, name), "Complete"))


@pytest.mark.parametrize(
    ("policy", "active"),
    [("Allow", ["nightly-1", "nightly-2"]), ("Forbid", ["nightly-1"]), ("Replace", ["nightly-2"])],
)
@virtual_time
async def test_the_concurrency_policy_decides_about_a_second_run(policy: str, active: list[str]) -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(CRON_JOBS, cron_job("nightly", container(), concurrencyPolicy=policy))
        names: list[str] = []
        for number in (1, 2):
            names.append(run_cron_job(cluster, "nightly", minute=number))
            await poll_cluster(cluster, lambda: _is_settled(cluster, names[-1], policy))
        found = [entry["name"] for entry in stored(cluster, CRON_JOBS, "nightly")["status"]["active"]]
        assert found == active


def _is_settled(cluster: SimulatedCluster, name: str, policy: str) -> bool:
    """Returns whether the run has started, or was refused because another run is active."""
    status = stored(cluster, CRON_JOBS, "nightly")["status"]
    refused = policy == "Forbid" and len(_jobs(cluster)) == 1
    return name in [entry["name"] for entry in status.get("active") or []] or refused


@virtual_time
async def test_finished_runs_are_kept_up_to_the_limits() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        body = cron_job(
            "nightly", container(script="exit 0"), successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1
        )
        cluster.store.create(CRON_JOBS, body)
        for number in range(1, 4):
            name = run_cron_job(cluster, "nightly", minute=number)
            await poll_cluster(cluster, partial(_is_complete, cluster, name))
        await poll_cluster(
            cluster, lambda: [job["metadata"]["name"] for job in _jobs(cluster)] == ["nightly-2", "nightly-3"]
        )
        assert "lastSuccessfulTime" in stored(cluster, CRON_JOBS, "nightly")["status"]


@virtual_time
async def test_a_resumed_cron_job_makes_up_only_for_the_latest_run() -> None:
    async with SimulatedCluster(speed=60) as cluster:
        cluster.store.create(CRON_JOBS, cron_job("nightly", container(), schedule="* * * * *", suspend=True))
        await cluster.clock.sleep(130)
        assert not _jobs(cluster)
        # Only the later of the two missed runs is made up for.
        change(cluster, CRON_JOBS, "nightly", suspend=False)
        await poll_cluster(cluster, lambda: len(_jobs(cluster)) == 1)
        last = stored(cluster, CRON_JOBS, "nightly")["status"]["lastScheduleTime"]
        assert last == format_time(cluster.clock.now().replace(second=0, microsecond=0))


_SETS = (
    st.sets(st.integers(0, 59), min_size=1, max_size=3), st.sets(st.integers(0, 23), min_size=1, max_size=3),
    st.sets(st.integers(1, 28), min_size=1, max_size=3), st.sets(st.integers(1, 12), min_size=1, max_size=4),
    st.sets(st.integers(0, 6), min_size=1, max_size=3),
)  # fmt: skip
_MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - a bound


@given(
    sets=st.tuples(*_SETS),
    open_fields=st.sets(st.integers(0, 4)),
    moment=_MOMENTS,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
def test_the_next_run_is_the_first_minute_that_matches(
    sets: tuple[set[int], ...], open_fields: set[int], moment: datetime, zone: str
) -> None:
    fields = [
        "*" if place in open_fields else ",".join(map(str, numbers)) for place, numbers in enumerate(sets)
    ]
    found = parse_schedule(" ".join(fields)).next_after(moment, zone)
    assert found is not None
    assert found > moment

    def matches(time: datetime) -> bool:
        local = time.astimezone(ZoneInfo(zone))
        values = (local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)
        fits = [place in open_fields or value in sets[place] for place, value in enumerate(values)]
        either = fits[2] or fits[4] if not open_fields & {2, 4} else fits[2] and fits[4]
        return fits[0] and fits[1] and fits[3] and either

    assert matches(found)
    # No earlier minute matches, at most six hours back.
    minute = timedelta(minutes=1)
    first = max(moment.replace(second=0, microsecond=0) + minute, found - timedelta(hours=6))
    assert not any(matches(first + number * minute) for number in range(int((found - first) / minute)))


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* 5-3 * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
    ],
)
def test_an_invalid_schedule_is_refused_with_the_message_of_the_library(schedule: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_schedule(schedule)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("@daily", "UTC", "2026-03-01T00:00:00", "2026-03-02T00:00:00"),
        ("@every 1h30m", "UTC", "2026-03-01T00:00:00", "2026-03-01T01:30:00"),
        ("0 9-17/4 * jan,MAR mon", "UTC", "2026-02-01T00:00:00", "2026-03-02T09:00:00"),
        # The hour that the change to summer time skips does not run; the hour that occurs twice runs twice.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-30T00:30:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T01:30:00"),
    ],
)
def test_schedules_have_the_meaning_of_the_library(
    schedule: str, zone: str, after: str, expected: str
) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert parse_schedule(schedule).next_after(moment, zone) == datetime.fromisoformat(expected).replace(
        tzinfo=UTC
    )


def test_a_day_that_never_occurs_has_no_run() -> None:
    assert parse_schedule("0 0 30 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None
