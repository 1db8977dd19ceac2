"""Usage by the hour, the most frequent query: one row for each past day, and single points for the rest.

Triggers maintain a row of `container_usage_days` for each container and day that has hourly roll-ups, and empty the row
whenever one of these is written. So a day without a row has no hours, and for an empty row the hours are read instead.
A late sample therefore appears as soon as it is stored, whether the day was packed or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import text

from pilothouse_server.metrics.model import PackedDay, Point, StepSizes
from pilothouse_server.metrics.repository import series
from pilothouse_server.metrics.repository.series import DAY, HOUR
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

# A container, and the begin and end of a period (seconds since 1970-01-01 UTC).
Stretch = tuple[int, int, int]

_READ: Final = text("""
SELECT container_id, CAST(extract(epoch FROM day) AS bigint) AS at, hours,
    CASE WHEN format = :format THEN points END AS points
FROM container_usage_days
WHERE container_id = ANY (CAST(:ids AS bigint[])) AND day >= to_timestamp(:from) AND day < to_timestamp(:until)
ORDER BY container_id, day""")
# One period after the other is read by the index. The LIMIT keeps PostgreSQL from joining all periods in one step.
_HOURS: Final = text(f"""
SELECT w.container_id, {series.SHOWN.format(at="bucket")}
FROM unnest(CAST(:ids AS bigint[]), CAST(:from AS bigint[]), CAST(:until AS bigint[]))
    AS w (container_id, lower, upper)
CROSS JOIN LATERAL (
    SELECT * FROM container_usage_hourly AS u
    WHERE u.container_id = w.container_id AND u.bucket >= to_timestamp(w.lower) AND u.bucket < to_timestamp(w.upper)
    ORDER BY u.bucket LIMIT 24
) AS h
ORDER BY w.container_id, bucket""")  # noqa: S608 - made of a constant
# The rows are locked before the hours are read, because a writer of an hour also locks its day's row.
_UNPACKED: Final = text("""
SELECT container_id, CAST(extract(epoch FROM day) AS bigint) AS at FROM container_usage_days
WHERE format < :format AND day < to_timestamp(:until)
ORDER BY format, day, container_id LIMIT :most FOR UPDATE SKIP LOCKED""")
_PACK: Final = text("""
UPDATE container_usage_days AS d SET format = :format, hours = p.hours, points = p.points
FROM unnest(CAST(:ids AS bigint[]), CAST(:days AS bigint[]), CAST(:hours AS integer[]), CAST(:points AS bytea[]))
    AS p (container_id, day, hours, points)
WHERE d.container_id = p.container_id AND d.day = to_timestamp(p.day)""")
_GONE: Final = text("""
DELETE FROM container_usage_days AS d USING unnest(CAST(:ids AS bigint[]), CAST(:days AS bigint[]))
    AS p (container_id, day)
WHERE d.container_id = p.container_id AND d.day = to_timestamp(p.day)""")


async def by_the_hour(
    transaction: ReadTransaction, steps: StepSizes, ids: Sequence[int], form: int
) -> list[PackedDay | Point]:
    """Returns hourly steps with samples, unordered: days that are packed in this form, and points of all others.

    A day may extend beyond the range; a point is always within it.
    """
    rolled = await series.rolled_until(transaction)
    until = series.clamped(rolled["hour"], steps.start, steps.end)
    found: list[PackedDay | Point] = []
    if until > steps.start:
        parameters = {"ids": list(ids), "from": steps.start - steps.start % DAY, "until": until}
        rows = await transaction.connection.execute_in_slices(_READ, parameters | {"format": form})
        unpacked: list[Stretch] = []
        for container_id, at, hours, points in rows.all():
            if points is None:
                unpacked.append((container_id, max(at, steps.start), min(at + DAY, until)))
            else:
                found.append(PackedDay(container_id, at, hours, points))
        found += await _hours(transaction, unpacked)
    if until < steps.end:
        found += await series.points(transaction, StepSizes(until, steps.end, HOUR), ids)
    return found


async def unpacked_days(
    transaction: Transaction, form: int, until: int, most: int
) -> dict[tuple[int, int], list[Point]]:
    """Returns days that end by `until` and are not packed in this form or a later one, and locks them.

    Returns at most `most` days, as (container, start) → its points in order. The oldest come first; days that are
    locked already are skipped.
    """
    parameters = {"format": form, "until": until - DAY + 1, "most": most}
    rows = (await transaction.connection.execute(_UNPACKED, parameters)).all()
    found: dict[tuple[int, int], list[Point]] = {(row.container_id, row.at): [] for row in rows}
    for point in await _hours(transaction, [(of, at, at + DAY) for of, at in found]):
        found[point.container_id, point.at - point.at % DAY].append(point)
    return found


async def pack(
    transaction: Transaction, form: int, days: Mapping[tuple[int, int], tuple[int, bytes]]
) -> None:
    """Writes days that the transaction has locked: (container, start) → bits of the hours, and their points as bytes.

    Deletes the row of a day that has no hours any more.
    """
    packed = {key: value for key, value in days.items() if value[0]}
    if packed:
        values = packed.values()
        columns: dict[str, Any] = {
            "hours": [item[0] for item in values],
            "points": [item[1] for item in values],
        }
        await transaction.connection.execute(_PACK, _keys(packed) | columns | {"format": form})
    if gone := days.keys() - packed.keys():
        await transaction.connection.execute(_GONE, _keys(gone))


def _keys(days: Any) -> dict[str, Any]:
    ordered = list(days)
    return {"ids": [key[0] for key in ordered], "days": [key[1] for key in ordered]}


async def _hours(transaction: ReadTransaction, stretches: Sequence[Stretch]) -> list[Point]:
    """Returns the hourly roll-ups of these periods, by container and time."""
    if not stretches:
        return []
    ids, lower, upper = (list(column) for column in zip(*stretches, strict=True))
    return await series.read_points(transaction, _HOURS, {"ids": ids, "from": lower, "until": upper})
