"""Schedules are parsed as in the simulated cluster, which has its own parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from zoneinfo import ZoneInfo

import pytest

from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.cron_schedule import RunSchedule, time_zone
from pilothouse_simulator.values.cron_schedule import parse_schedule

GOOD = ("*", "?", "*/2", "*/1", "*/15", "1", "5", "1-5/2", "2/3", "1,2,3", "", "+3", "3-5")
PARTS = (
    *(
        "0",
        "7",
        "9-17",
        "10/5",
        "mon",
        "MON-FRI",
        "jan,dec",
        "31",
        "30",
        "2-",
        "-1",
        "a",
        "5-2",
        "*/0",
        "60",
        "24",
    ),
    *("0-6", "1/2/3", "29"),
)
MACROS = (
    "@every 90s",
    "@every 1h30m",
    "@hourly",
    "@every 1.5h",
    "@x",
    "* * * *",
    "@every",
    "@every -1s",
    "@weekly",
)
ZONES = ("UTC", "Europe/Paris", "Australia/Lord_Howe", "Antarctica/Troll", "America/New_York")


def parsed(text: str) -> RunSchedule | None:
    try:
        return RunSchedule.parse(text)
    except InvalidValueError:
        return None


def test_both_parsers_accept_the_same_schedules_with_the_same_times() -> None:
    random, taken = Random(4), 0
    texts = [
        " ".join(random.choice(GOOD if random.random() < 0.8 else PARTS) for _ in range(5))
        for _ in range(3000)
    ]
    for text in (*MACROS, *texts):
        try:
            theirs = parse_schedule(text)
        except ValueError:
            assert parsed(text) is None, text
            continue
        ours = parsed(text)
        assert ours is not None, text
        taken += 1
        if taken % 10 == 0 or text in MACROS:
            days, seconds = random.randrange(365), random.randrange(86400)
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days, seconds=seconds)
            zone = random.choice(ZONES)
            found = ours.next_after(moment, ZoneInfo(zone), since=moment)
            assert found == theirs.next_after(moment, zone), (text, moment, zone)
    assert taken > 400


def test_an_interval_is_counted_from_the_previous_run() -> None:
    since = datetime(2026, 1, 1, 10, 0, 7, tzinfo=UTC)
    schedule = RunSchedule.parse("@every 10m")
    found = schedule.next_after(since + timedelta(minutes=25), ZoneInfo("UTC"), since=since)
    assert found == since + timedelta(minutes=30)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "local", "Local"])
def test_a_time_zone_must_be_in_the_database(name: str) -> None:
    with pytest.raises(InvalidValueError):
        time_zone(name)
    assert time_zone("Europe/Paris").key == "Europe/Paris"


def test_a_schedule_that_never_matches_has_no_next_time() -> None:
    for hour, minute in product(("0", "*"), ("0", "*")):
        schedule = RunSchedule.parse(f"{minute} {hour} 30 2 *")
        assert (
            schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("UTC"), since=datetime.now(UTC))
            is None
        )
