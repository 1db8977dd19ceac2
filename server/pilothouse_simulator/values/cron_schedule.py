"""Cron schedules, in the grammar and with the errors of Kubernetes' library (robfig/cron v3, ParseStandard).

Five fields (minute, hour, day of the month, month, day of the week), or a macro such as `@daily` or `@every 1h30m`. If
both day fields are restricted, one match is enough. Local times that a time zone skips do not run; local times that
occur twice run twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES: tuple[dict[str, int], ...] = (
    {}, {}, {}, {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_DAYS)},
)  # fmt: skip
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST_SEARCH = timedelta(days=5 * 366)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class CronSchedule:
    """The schedule of a CronJob.

    `every` is the interval of `@every`; otherwise the sets have the numbers of each field.

    With `either_day`, a match of the day of the month or of the week is enough.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either_day: bool = False
    every: timedelta | None = None

    def next_after(self, moment: datetime, zone: str = "UTC") -> datetime | None:
        """Returns the first run after a moment, in UTC; None if there is none within five years."""
        if self.every is not None:
            return moment.replace(microsecond=0) + self.every
        place = ZoneInfo(zone)
        candidate = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        end = candidate + _LONGEST_SEARCH
        while candidate < end:
            local = candidate.astimezone(place)
            if not self._has_day(local.date()):
                midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), place)
                candidate = max(candidate + _MINUTE, midnight.astimezone(UTC))
            elif local.hour in self.hours and local.minute in self.minutes:
                return candidate
            else:
                candidate += _MINUTE
        return None

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def parse_schedule(text: str) -> CronSchedule:
    """Parses a schedule. Raises ValueError with the message of the library."""
    if not text:
        raise ValueError("empty spec string")
    if text.startswith("@every "):
        return CronSchedule(every=_duration(text, text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in _MACROS:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = _MACROS[text]
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    minutes, hours, days, months, weekdays = (_field(field, place) for place, field in enumerate(fields))
    either = not any(_is_star(fields[place]) for place in (2, 4))
    return CronSchedule(minutes, hours, days, months, weekdays, either_day=either)


def _is_star(field: str) -> bool:
    """Returns whether a day field is unrestricted, so that only the other day field counts."""
    return any(
        part.partition("/")[0] in ("*", "?") and part.partition("/")[2] in ("", "1")
        for part in field.split(",")
    )


def _field(text: str, place: int) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        found |= _range(part, place)
    return frozenset(found)


def _range(text: str, place: int) -> set[int]:
    least, most = _BOUNDS[place]
    span, slash, step_text = text.partition("/")
    bounds = span.split("-")
    if len(bounds) > 2:
        raise ValueError(f"too many hyphens: {text}")
    if "/" in step_text:
        raise ValueError(f"too many slashes: {text}")
    if bounds[0] in ("*", "?"):
        first, last = least, most
    else:
        first = _number(bounds[0], place)
        last = _number(bounds[1], place) if len(bounds) == 2 else most if slash else first
    step = _integer(step_text) if slash else 1
    if first < least:
        raise ValueError(f"beginning of range ({first}) below minimum ({least}): {text}")
    if last > most:
        raise ValueError(f"end of range ({last}) above maximum ({most}): {text}")
    if first > last:
        raise ValueError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return set(range(first, last + 1, step))


def _number(text: str, place: int) -> int:
    named = _NAMES[place].get(text.lower())
    return named if named is not None else _integer(text)


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise ValueError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


def _duration(spec: str, text: str) -> timedelta:
    """Parses a Go duration, truncated to whole seconds and at least one."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|h|m|s))+", text):
        raise ValueError(f'failed to parse duration {spec}: time: invalid duration "{text}"')
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    return timedelta(seconds=max(1, int(sum(float(number) * _UNITS[unit] for number, unit in parts))))
