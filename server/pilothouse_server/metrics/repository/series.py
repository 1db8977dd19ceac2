"""Usage over time: writes roll-ups, and reads steps from roll-ups or samples.

Network counters become increases here, in the same way for roll-ups and queries. A sample's increase is the growth of
its counter since the container's previous sample, if that is no more than a day older. If the counter of a single pod
has fallen, the pod has restarted, so the whole value is the increase. If the summed counter of several pods has fallen,
one of the pods has ended; the increase is then unknown, and counts as 0. The increase belongs to the time of the later
sample.

All times are whole seconds since 1970-01-01 UTC, so that a range may extend beyond the limits of a `datetime`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import Executable, Select, TextClause, select, text

from pilothouse_server.metrics.model import Point, StepSizes, UsageSubject
from pilothouse_server.metrics.tables import CONTAINERS
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store.paging import (
    NextPage,
    OrderColumn,
    OrderSpec,
    PageRequest,
    finish_page,
    paginate,
)
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_RUN = text(
    "SELECT r.start_time, r.end_time FROM container_runs AS r JOIN containers AS c ON c.id = r.container_id "
    "WHERE c.namespace_id = :namespace_id AND c.name = :container AND r.number = :number"
)
HOUR: Final = 3600
DAY: Final = 86400
Rolled = Literal["hour", "day"]

_MEASURED = (
    "u.id, u.container_id, u.namespace_id, u.timestamp, u.cpu_cores_used, u.memory_bytes_used, "
    "u.disk_bytes_used"
)
_PODS = "coalesce(CAST(u.metadata ->> 'pods' AS integer), 1)"


def _before(counter: str, columns: str) -> str:
    """Returns SQL for each container's last sample before the range that has `counter`."""
    return f"""
    SELECT b.* FROM unnest(CAST(:ids AS bigint[])) AS k (container_id)
    CROSS JOIN LATERAL (
        SELECT {_MEASURED}, {columns}, {_PODS} FROM container_resource_usage AS u
        WHERE u.container_id = k.container_id AND u.timestamp < to_timestamp(:from)
          AND u.timestamp >= to_timestamp(:from) - interval '1 day' AND u.{counter} IS NOT NULL
        ORDER BY u.timestamp DESC, u.id DESC LIMIT 1
    ) AS b"""  # noqa: S608 - made of the constants above


def _increase(counter: str) -> str:
    return f"""CASE
        WHEN {counter}_time IS NULL OR timestamp - {counter}_time > interval '1 day' THEN 0
        WHEN {counter} >= {counter}_before THEN {counter} - {counter}_before
        WHEN pods > 1 THEN 0
        ELSE {counter} END"""


# Samples of `ids` with from <= timestamp < until, with the increases of their counters.
_SAMPLES = f"""
measured AS (
    SELECT {_MEASURED}, u.network_bytes_rx AS rx, u.network_bytes_tx AS tx, {_PODS} AS pods
    FROM container_resource_usage AS u
    WHERE u.timestamp >= to_timestamp(:from) AND u.timestamp < to_timestamp(:until)
      AND u.container_id = ANY (CAST(:ids AS bigint[]))
    UNION ALL {_before("network_bytes_rx", "u.network_bytes_rx, CAST(NULL AS bigint)")}
    UNION ALL {_before("network_bytes_tx", "CAST(NULL AS bigint), u.network_bytes_tx")}
), counted AS (
    SELECT measured.*,
        lag(rx) OVER by_rx AS rx_before, lag(timestamp) OVER by_rx AS rx_time,
        lag(tx) OVER by_tx AS tx_before, lag(timestamp) OVER by_tx AS tx_time
    FROM measured
    WINDOW by_rx AS (PARTITION BY container_id, rx IS NULL ORDER BY timestamp, id),
           by_tx AS (PARTITION BY container_id, tx IS NULL ORDER BY timestamp, id)
), samples AS (
    SELECT container_id, namespace_id, timestamp, cpu_cores_used, memory_bytes_used, disk_bytes_used,
        {_increase("rx")} AS rx, {_increase("tx")} AS tx
    FROM counted WHERE timestamp >= to_timestamp(:from)
)"""  # noqa: S608 - made of the constants above

_ROLLED = (
    "container_id, namespace_id, bucket, samples, cpu_cores_avg, cpu_cores_max, memory_bytes_avg, memory_bytes_max, "
    "network_bytes_rx, network_bytes_tx, disk_bytes_max"
)


def _replacing(table: str) -> str:
    columns = _ROLLED.split(", ")[3:]
    sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns)
    return f"ON CONFLICT ON CONSTRAINT pk_{table} DO UPDATE SET {sets}"


_WEIGHTED = """sum(samples),
    sum(cpu_cores_avg * samples) / sum(samples), max(cpu_cores_max),
    round(sum(CAST(memory_bytes_avg AS numeric) * samples) / sum(samples)), max(memory_bytes_max),
    sum(network_bytes_rx), sum(network_bytes_tx), max(disk_bytes_max)"""

_ROLL = {
    "hour": text(f"""
WITH {_SAMPLES}
INSERT INTO container_usage_hourly ({_ROLLED})
SELECT container_id, namespace_id, to_timestamp(:from), count(*), avg(cpu_cores_used), max(cpu_cores_used),
    round(avg(memory_bytes_used)), max(memory_bytes_used), coalesce(sum(rx), 0), coalesce(sum(tx), 0),
    max(disk_bytes_used)
FROM samples GROUP BY container_id, namespace_id ORDER BY container_id
{_replacing("container_usage_hourly")}"""),  # noqa: S608 - made of the constants above
    "day": text(f"""
INSERT INTO container_usage_daily ({_ROLLED})
SELECT container_id, namespace_id, to_timestamp(:from), {_WEIGHTED}
FROM container_usage_hourly
WHERE bucket >= to_timestamp(:from) AND bucket < to_timestamp(:until)
  AND container_id = ANY (CAST(:ids AS bigint[]))
GROUP BY container_id, namespace_id ORDER BY container_id
{_replacing("container_usage_daily")}"""),  # noqa: S608 - made of the constants above
}
_LENGTH = {"hour": HOUR, "day": DAY}
_IDS = {
    "hour": text("""
SELECT DISTINCT container_id FROM container_resource_usage
WHERE timestamp >= to_timestamp(:from) AND timestamp < to_timestamp(:until)"""),
    "day": text("""
SELECT DISTINCT container_id FROM container_usage_hourly
WHERE bucket >= to_timestamp(:from) AND bucket < to_timestamp(:until)"""),
}
_FIRST = {
    "hour": text("""
SELECT CAST(floor(extract(epoch FROM min(timestamp))) AS bigint) FROM container_resource_usage
WHERE timestamp >= to_timestamp(:from) AND timestamp < to_timestamp(:until)"""),
    "day": text("""
SELECT CAST(extract(epoch FROM min(bucket)) AS bigint) FROM container_usage_hourly
WHERE bucket >= to_timestamp(:from) AND bucket < to_timestamp(:until)"""),
}
_NEWEST = text("""
SELECT CAST(extract(epoch FROM hour) AS bigint) AS hour, CAST(extract(epoch FROM day) AS bigint) AS day
FROM usage_rolled_until()""")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('usage roll-ups', 0))")
_FOLLOWING = text("""
SELECT k.container_id, CAST(floor(extract(epoch FROM f.timestamp)) AS bigint) AS at
FROM unnest(CAST(:ids AS bigint[])) AS k (container_id)
CROSS JOIN LATERAL (
    (SELECT u.timestamp FROM container_resource_usage AS u
     WHERE u.container_id = k.container_id AND u.timestamp >= to_timestamp(:until)
       AND u.timestamp < to_timestamp(:until) + interval '1 day' AND u.network_bytes_rx IS NOT NULL
     ORDER BY u.timestamp LIMIT 1)
    UNION
    (SELECT u.timestamp FROM container_resource_usage AS u
     WHERE u.container_id = k.container_id AND u.timestamp >= to_timestamp(:until)
       AND u.timestamp < to_timestamp(:until) + interval '1 day' AND u.network_bytes_tx IS NOT NULL
     ORDER BY u.timestamp LIMIT 1)
) AS f""")


async def lock_roll_ups(transaction: Transaction) -> None:
    """Takes the lock for writing roll-ups until the transaction ends."""
    await transaction.connection.execute(_LOCK)


async def rolled_until(transaction: ReadTransaction) -> dict[Rolled, int | None]:
    """Returns the times until which everything is rolled up; None if nothing is.

    Each is the end of the newest bucket. A day that is rolled up also completes its last hours, even hours without
    samples. A sample for such an hour counts as late; otherwise it would be missing from the day.
    """
    row = (await transaction.connection.execute(_NEWEST)).one()
    day = None if row.day is None else row.day + DAY
    hour = None if row.hour is None else row.hour + HOUR
    return {"hour": hour if day is None or hour is None else max(hour, day), "day": day}


async def first_to_roll(
    transaction: ReadTransaction, rolled: Rolled, start: int | None, until: int
) -> int | None:
    """Returns the first bucket with something to roll up in start <= time < until; `start` None: no lower bound."""
    parameters = {"from": 0 if start is None else start, "until": until}
    found: int | None = (await transaction.connection.execute(_FIRST[rolled], parameters)).scalar_one()
    return None if found is None else found - found % _LENGTH[rolled]


async def roll(
    transaction: Transaction, rolled: Rolled, bucket: int, ids: Iterable[int] | None = None
) -> None:
    """Rewrites the roll-ups of one bucket, for these containers or for all; days are computed from hours."""
    range_ = {"from": bucket, "until": bucket + _LENGTH[rolled]}
    if ids is None:
        ids = (await transaction.connection.execute(_IDS[rolled], range_)).scalars()
    await transaction.connection.execute(_ROLL[rolled], range_ | {"ids": sorted(ids)})


async def following(transaction: ReadTransaction, ids: Sequence[int], until: int) -> list[tuple[int, int]]:
    """Returns the first samples of these containers at or after `until`: (container, time).

    The increases of these samples depend on earlier ones.
    """
    rows = await transaction.connection.execute(_FOLLOWING, {"ids": list(ids), "until": until})
    return [(row.container_id, row.at) for row in rows]


_SUBJECT_ORDER = OrderSpec(
    (
        OrderColumn("namespace", NAMESPACES.c.name),
        OrderColumn("container", CONTAINERS.c.name),
        OrderColumn("", CONTAINERS.c.id),
    )
)


async def run_times(
    transaction: ReadTransaction, namespace_id: int, container: str, number: int
) -> tuple[datetime, datetime | None] | None:
    """Returns when a run of a container began and ended; None for a run that has not begun."""
    keys = {"namespace_id": namespace_id, "container": container, "number": number}
    row = (await transaction.connection.execute(_RUN, keys)).one_or_none()
    return None if row is None or row.start_time is None else (row.start_time, row.end_time)


async def subjects(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    container: str,
    visible: frozenset[int] | None,
) -> tuple[list[UsageSubject], NextPage]:
    """Returns one page of containers by namespace and name, and where the next page begins."""
    query: Select[Any] = select(
        CONTAINERS.c.id,
        CONTAINERS.c.uid,
        NAMESPACES.c.name.label("namespace"),
        CONTAINERS.c.name.label("container"),
    ).select_from(CONTAINERS.join(NAMESPACES, NAMESPACES.c.id == CONTAINERS.c.namespace_id))
    # An ended namespace has no containers. The condition lets PostgreSQL use the index on the names of existing ones.
    query = query.where(NAMESPACES.c.deleted_at.is_(None))
    if namespace_id is not None:
        query = query.where(CONTAINERS.c.namespace_id == namespace_id)
    if container:
        query = query.where(CONTAINERS.c.name == container)
    if visible is not None:
        query = query.where(CONTAINERS.c.namespace_id.in_(visible))
    rows = (await transaction.connection.execute(paginate(query, _SUBJECT_ORDER, page))).all()
    rows, next_page = finish_page(rows, _SUBJECT_ORDER, page)
    return [UsageSubject(row.id, str(row.uid), row.namespace, row.container) for row in rows], next_page


async def points(transaction: ReadTransaction, steps: StepSizes, ids: Sequence[int]) -> list[Point]:
    """Returns steps with samples, by container and time.

    Whole hours and days are read from the roll-ups if these exist, the rest from samples.
    """
    until = await rolled_until(transaction)
    by_day = clamped(until["day"] if steps.step % DAY == 0 else None, steps.start, steps.end)
    by_hour = clamped(until["hour"] if steps.step % HOUR == 0 else None, by_day, steps.end)
    statement = _points(
        steps.step if steps.step in (HOUR, DAY) else 0,
        by_day > steps.start,
        by_hour > by_day,
        steps.end > by_hour,
    )
    parameters = {
        "ids": list(ids),
        "step": steps.step,
        "start": steps.start,
        "by_day": by_day,
        "by_hour": by_hour,
        "from": by_hour,
        "until": steps.end,
    }
    used = statement.compile().params.keys()
    return await read_points(transaction, statement, {name: parameters[name] for name in used})


# If a pod has only one program, the main one, its samples do not name it.
_OF_PROGRAM = text("""
WITH measured AS (
    SELECT u.container_id,
        date_bin(make_interval(secs => :step), u.timestamp, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS at,
        CASE WHEN u.metadata -> 'programs' IS NOT NULL THEN u.metadata -> 'programs' -> CAST(:program AS text)
            WHEN coalesce(c.spec ->> 'pod_container_name', 'main') = CAST(:program AS text)
            THEN jsonb_build_array(u.cpu_cores_used, u.memory_bytes_used) END AS used
    FROM container_resource_usage AS u JOIN containers AS c ON c.id = u.container_id
    WHERE u.container_id = ANY (CAST(:ids AS bigint[]))
      AND u.timestamp >= to_timestamp(:start) AND u.timestamp < to_timestamp(:end)
)
SELECT container_id, CAST(extract(epoch FROM at) AS bigint) AS at, count(*),
    coalesce(avg(CAST(used ->> 0 AS float8)), 0), coalesce(max(CAST(used ->> 0 AS float8)), 0),
    CAST(coalesce(round(avg(CAST(used ->> 1 AS numeric))), 0) AS bigint),
    coalesce(max(CAST(used ->> 1 AS bigint)), 0),
    CAST(0 AS bigint), CAST(0 AS bigint), CAST(0 AS bigint)
FROM measured WHERE used IS NOT NULL GROUP BY container_id, at ORDER BY container_id, at""")


async def points_of_program(
    transaction: ReadTransaction, steps: StepSizes, ids: Sequence[int], program: str
) -> list[Point]:
    """Returns steps with samples of one program, by container and time; only cores and memory are set."""
    parameters = {
        "ids": list(ids),
        "program": program,
        "step": steps.step,
        "start": steps.start,
        "end": steps.end,
    }
    return await read_points(transaction, _OF_PROGRAM, parameters)


async def read_points(
    transaction: ReadTransaction, statement: Executable, parameters: Mapping[str, Any]
) -> list[Point]:
    """Returns the points that a query selects; yields between slices, because there may be tens of thousands."""
    found: list[Point] = []
    share = Share()
    async for rows in transaction.connection.slices(statement, parameters):
        found += [Point(*row) for row in rows]
        await share.used()
    return found


def clamped(until: int | None, lower: int, upper: int) -> int:
    """Returns `until` clamped to the range from `lower` to `upper`; `lower` for None."""
    return lower if until is None else min(max(until, lower), upper)


# The columns of a `Point` except its container, from a table or query with the columns of roll-ups.
SHOWN = """CAST(extract(epoch FROM {at}) AS bigint) AS at, CAST(samples AS bigint) AS samples,
    coalesce(CAST(cpu_cores_avg AS float8), 0), coalesce(CAST(cpu_cores_max AS float8), 0),
    CAST(coalesce(memory_bytes_avg, 0) AS bigint), coalesce(memory_bytes_max, 0),
    CAST(coalesce(network_bytes_rx, 0) AS bigint), CAST(coalesce(network_bytes_tx, 0) AS bigint),
    coalesce(disk_bytes_max, 0)"""


@cache
def _points(whole: int, days: bool, hours: bool, samples: bool) -> TextClause:
    """Returns the statement that reads steps from those of the three sources that the range needs.

    Roll-ups of length `whole`, in seconds, are steps themselves; all others are aggregated into steps.
    """
    columns = _ROLLED.replace("namespace_id, ", "")
    shown: list[str] = []
    sources: list[str] = []
    for wanted, length, table, lower, upper in (
        (days, DAY, "container_usage_daily", "start", "by_day"),
        (hours, HOUR, "container_usage_hourly", "by_day", "by_hour"),
    ):
        if not wanted:
            continue
        source = (
            f"FROM {table} WHERE container_id = ANY (CAST(:ids AS bigint[])) "
            f"AND bucket >= to_timestamp(:{lower}) AND bucket < to_timestamp(:{upper})"
        )
        if length == whole:
            shown.append(f"SELECT container_id, {SHOWN.format(at='bucket')} {source}")
        else:
            sources.append(f"SELECT {columns} {source}")
    if samples:
        sources.append(
            "SELECT container_id, timestamp, 1, cpu_cores_used, cpu_cores_used, memory_bytes_used, memory_bytes_used, "
            "rx, tx, disk_bytes_used FROM samples"
        )
    parts = [_SAMPLES] if samples else []
    if sources:
        parts.append(f"""sources ({columns}) AS ({" UNION ALL ".join(sources)}), binned (
    container_id, at, samples, cpu_cores_avg, cpu_cores_max, memory_bytes_avg, memory_bytes_max, network_bytes_rx,
    network_bytes_tx, disk_bytes_max) AS (
    SELECT container_id,
        date_bin(make_interval(secs => :step), bucket, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS at, {_WEIGHTED}
    FROM sources GROUP BY container_id, at
)""")  # noqa: S608 - made of the constants above
        shown.append(f"SELECT container_id, {SHOWN.format(at='at')} FROM binned")  # noqa: S608
    with_parts = f"WITH {', '.join(parts)} " if parts else ""
    return text(f"{with_parts}{' UNION ALL '.join(shown)} ORDER BY container_id, at")
