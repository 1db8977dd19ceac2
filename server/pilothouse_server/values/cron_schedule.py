"""Schedules of CronJobs, with the grammar of Kubernetes' library (robfig/cron v3, `ParseStandard`).

A schedule has five fields (minute, hour, day of the month, month, day of the week), or is a macro. If both kinds of
days are restricted, it is enough that one matches. A local time that a time zone skips does not occur; one that it
repeats occurs twice. The library does not accept 7 for Sunday. Kubernetes refuses a time zone inside the schedule.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from pilothouse_server.values import InvalidValueError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{0,9})?(?:h|m|s|ms))+")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(?P<first>[*?]|\+?\w+)(?:-(?P<last>\+?\w+))?(?:/(?P<step>\d{1,9}))?")
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
# As in the library, a schedule that matches no time within five years never runs.
_LONGEST = timedelta(days=5 * 366)


class _Bounds(msgspec.Struct, frozen=True):
    name: str
    least: int
    most: int
    words: dict[str, int] = {}


_FIELDS: Final = (
    _Bounds("minute", 0, 59),
    _Bounds("hour", 0, 23),
    _Bounds("day of the month", 1, 31),
    _Bounds("month", 1, 12, {word: number for number, word in enumerate(_MONTHS, 1)}),
    _Bounds("day of the week", 0, 6, {word: number for number, word in enumerate(_DAYS)}),
)


class RunSchedule(msgspec.Struct, frozen=True):
    """The numbers of each field, or the interval `every`. `either_day`: one matching day of the two is enough."""

    fields: tuple[frozenset[int], ...] = ()
    either_day: bool = False
    every: timedelta | None = None

    @classmethod
    def parse(cls, text: str) -> RunSchedule:
        """Parses a schedule. Raises InvalidValueError; its message completes the name of the field."""
        if "TZ" in text:
            raise InvalidValueError("must not have TZ or CRON_TZ: set time_zone")
        if text.startswith(_EVERY):
            return cls(every=_duration(text.removeprefix(_EVERY)))
        if text.startswith("@") and text not in _MACROS:
            raise InvalidValueError(f"must be a macro such as {', '.join(_MACROS)} or @every 1h30m")
        parts = _MACROS.get(text, text).split()
        if len(parts) != len(_FIELDS):
            names = ", ".join(field.name for field in _FIELDS)
            raise InvalidValueError(f"must have {len(_FIELDS)} fields ({names}), not {len(parts)}")
        fields = tuple(_numbers(part, bounds) for part, bounds in zip(parts, _FIELDS, strict=True))
        return cls(fields, either_day=not any(_is_open(parts[place]) for place in (2, 4)))

    def next_after(self, moment: datetime, zone: ZoneInfo, *, since: datetime) -> datetime | None:
        """Returns the first time after `moment`; None if there is none in five years. `since`: the previous run."""
        if self.every is not None:
            passed = max(0, (moment - since) // self.every)
            return since.replace(microsecond=0) + (passed + 1) * self.every
        at = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        end = at + _LONGEST
        while at < end:
            local = at.astimezone(zone)
            if not self._has_day(local):
                midnight = datetime.combine(local.date() + _DAY, time(), zone).astimezone(UTC)
                at = max(at + _MINUTE, midnight)
            elif local.hour not in self.fields[1]:
                at += (60 - local.minute) * _MINUTE
            elif local.minute not in self.fields[0]:
                at += _MINUTE
            else:
                return at
        return None

    def _has_day(self, local: datetime) -> bool:
        _, _, days, months, weekdays = self.fields
        if local.month not in months:
            return False
        found = local.day in days, local.isoweekday() % 7 in weekdays
        return any(found) if self.either_day else all(found)


def time_zone(name: str) -> ZoneInfo:
    """Returns a time zone by its name in the time zone database. Raises InvalidValueError."""
    try:
        if name.lower() == "local":
            raise ValueError
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, KeyError):
        raise InvalidValueError("must be the name of a time zone, such as Europe/Paris") from None


def _duration(text: str) -> timedelta:
    if not _DURATION.fullmatch(text):
        raise InvalidValueError("must have a duration such as 1h30m after @every")
    found = re.findall(r"(\d+(?:\.\d*)?)(ms|h|m|s)", text)
    seconds = int(sum(float(number) * _UNITS[unit] for number, unit in found))
    if seconds > _LONGEST.total_seconds():
        raise InvalidValueError("must not be above five years")
    return timedelta(seconds=max(1, seconds))


def _is_open(field: str) -> bool:
    """Returns whether a field of days is unrestricted, so that only the other one decides."""
    return any(part in ("*", "?", "*/1", "?/1") for part in field.split(","))


def _numbers(text: str, bounds: _Bounds) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        found |= _span(part, bounds)
    return frozenset(found)


def _span(text: str, bounds: _Bounds) -> set[int]:
    found = _PART.fullmatch(text)
    if found is None:
        raise InvalidValueError(
            f'must have numbers, ranges and steps such as 0,10-20/5 as its {bounds.name}: "{text}"'
        )
    if found["first"] in ("*", "?"):
        first, last = bounds.least, bounds.most
    else:
        first = _number(found["first"], bounds)
        last = _number(found["last"], bounds) if found["last"] else bounds.most if found["step"] else first
    if first > last:
        raise InvalidValueError(f'must have ranges that ascend as its {bounds.name}: "{text}"')
    step = int(found["step"] or 1)
    if step == 0:
        raise InvalidValueError(f'must not have 0 as a step of its {bounds.name}: "{text}"')
    return set(range(first, last + 1, step))


def _number(text: str, bounds: _Bounds) -> int:
    named = bounds.words.get(text.lower())
    number = int(text) if named is None and re.fullmatch(r"\+?[0-9]{1,9}", text) else named
    if number is None or not bounds.least <= number <= bounds.most:
        raise InvalidValueError(f'must have a {bounds.name} from {bounds.least} to {bounds.most}: "{text}"')
    return number
