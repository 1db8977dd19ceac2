"""Fields that the platform and another manager keep changing back; pure functions.

A field that was repaired three times within ten minutes is contested. The platform leaves it to the other manager, and
reports it, until somebody changes the object here or the cluster has the desired value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pilothouse_server.kubernetes.conditions import MESSAGE_LIMIT
from pilothouse_server.objects.model import Contest
from pilothouse_server.values.resources import Condition

CONTESTED: Final = "Contested"
_MOST_TIMES: Final = 3
_WITHIN: Final = timedelta(minutes=10)
_MOST_FIELDS: Final = 32


def contested(contests: Iterable[Contest]) -> list[Contest]:
    """Returns the contested fields that are left to the other manager."""
    return [each for each in contests if len(each.times) >= _MOST_TIMES]


def after(
    contests: Iterable[Contest],
    taken_back: Iterable[tuple[str, str]],
    settled: Collection[str],
    now: datetime,
) -> tuple[Contest, ...]:
    """Returns the contests after fields were taken back from their managers, at most 32.

    `settled`: contested fields that have the desired value again.
    """
    kept = {each.field: each for each in contests if each.field not in settled}
    for field, manager in taken_back:
        before = kept.get(field, Contest(field))
        times = (*(each for each in before.times if now - each < _WITHIN), now)
        kept[field] = Contest(field, manager or before.manager, times)
    fresh = [
        each for each in kept.values() if contested((each,)) or any(now - t < _WITHIN for t in each.times)
    ]
    return tuple(sorted(fresh, key=lambda each: each.times[-1])[-_MOST_FIELDS:])


def with_condition(conditions: tuple[Condition, ...], contests: Iterable[Contest]) -> Condition | None:
    """Returns the condition `Contested`; None if no field is contested and the object never had the condition."""
    if found := contested(contests):
        said = (f"{each.field} by {each.manager!r}" if each.manager else each.field for each in found)
        words = f"taken back {_MOST_TIMES} times and left to others: {'; '.join(said)}"
        return Condition(CONTESTED, "True", "TakenBackRepeatedly", words[:MESSAGE_LIMIT])
    if any(each.type == CONTESTED for each in conditions):
        return Condition(CONTESTED, "False", "Settled")
    return None


class Settlement(msgspec.Struct, frozen=True):
    """The result of an apply for contests: taken-back fields with their managers, and settled fields."""

    taken_back: tuple[tuple[str, str], ...] = ()
    settled: tuple[str, ...] = ()
