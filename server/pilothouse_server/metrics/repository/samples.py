"""Samples: written in batches, read as they were stored.

COPY is by far the fastest way to insert, but PostgreSQL refuses it for a table under row-level security. So a batch is
copied into a temporary table of the connection, and stored from there by one INSERT … SELECT. (With arrays and `unnest`
the driver would process each value.) The plain statement does not check its rows, because foreign keys and partitions
check them anyway. Only if one of these refuses the batch, the careful statement is used, which leaves out rows whose
container was deleted.

Each row locks its container's key until the transaction ends. Rows are stored in the order of containers, which is also
the order in which the deletion of a namespace locks its containers.

A batch announces its lowest id on `CHANNEL` as it commits. Ids are not assigned in commit order, so readers that follow
samples read from the lowest announced id on (see `usage_stream`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec
from sqlalchemy import text

from pilothouse_server.errors import Aborted
from pilothouse_server.metrics.model import (
    ProgramUsage,
    Stored,
    StoredSample,
    TimeRange,
    UsageSample,
    UsageTarget,
)
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.quantity import Quantity

CHANNEL: Final = "pilothouse_usage"
# Reasons of the Aborted error that `insert` raises.
CONTAINER_GONE: Final = "CONTAINER_GONE"
NO_PARTITION: Final = "NO_PARTITION"

_COLUMNS: Final = (
    ("container_id", "bigint"),
    ("namespace_id", "bigint"),
    ("timestamp", "timestamptz"),
    ("pods", "bigint"),
    ("cpu_cores_used", "float8"),
    ("memory_bytes_used", "bigint"),
    ("cpu_cores_request", "float8"),
    ("cpu_cores_limit", "float8"),
    ("memory_bytes_request", "bigint"),
    ("memory_bytes_limit", "bigint"),
    ("network_bytes_rx", "bigint"),
    ("network_bytes_tx", "bigint"),
    ("disk_bytes_used", "bigint"),
    ("disk_bytes_total", "bigint"),
    ("network_packets_rx", "bigint"),
    ("network_packets_tx", "bigint"),
    ("filesystem_reads", "bigint"),
    ("filesystem_writes", "bigint"),
    ("programs", "text"),
)
# The columns are the fields of a sample, in the same order; a row is the sample as a tuple.
_NAMES: Final = tuple(name for name, _ in _COLUMNS)
_STAGE = text(
    "CREATE TEMPORARY TABLE IF NOT EXISTS staged_usage ("
    + ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
    + ") ON COMMIT DELETE ROWS"
)
_COUNTERS = (
    "network_bytes_rx, network_bytes_tx, network_packets_rx, network_packets_tx, disk_bytes_used, "
    "disk_bytes_total, filesystem_reads, filesystem_writes"
)


def _percent(used: str, *whole: str) -> str:
    """Returns SQL for a percentage of the first non-empty value of `whole`.

    The result is capped, because a tiny request makes any usage a large share.
    """
    parts = ", ".join(f"nullif(s.{name}, 0)" for name in whole)
    of = f"coalesce({parts})"
    share = f"round(CAST(100.0 * s.{used} / {of} AS numeric), 2)"
    # `least` ignores nulls, so it must not be evaluated if there is no value to take a share of.
    return f"CASE WHEN {of} IS NOT NULL AND s.{used} IS NOT NULL THEN least({share}, 9999999999.99) END"


def _insert(narrowed: str = "") -> str:
    return f"""
WITH stored AS (
    INSERT INTO container_resource_usage (container_id, namespace_id, timestamp, cpu_cores_used, cpu_cores_request,
        cpu_cores_limit, cpu_usage_percent, memory_bytes_used, memory_bytes_request, memory_bytes_limit,
        memory_usage_percent, disk_usage_percent, metadata, {_COUNTERS})
    SELECT s.container_id, s.namespace_id, s.timestamp, s.cpu_cores_used, s.cpu_cores_request, s.cpu_cores_limit,
        {_percent("cpu_cores_used", "cpu_cores_limit", "cpu_cores_request")},
        s.memory_bytes_used, s.memory_bytes_request, s.memory_bytes_limit,
        {_percent("memory_bytes_used", "memory_bytes_limit", "memory_bytes_request")},
        {_percent("disk_bytes_used", "disk_bytes_total")},
        CASE WHEN s.programs IS NOT NULL
            THEN jsonb_build_object('pods', s.pods, 'programs', CAST(s.programs AS jsonb))
            WHEN s.pods > 1 THEN jsonb_build_object('pods', s.pods) ELSE '{{}}' END, {_COUNTERS}
    FROM pg_temp.staged_usage AS s
    {narrowed}
    ORDER BY s.container_id
    RETURNING id
)
SELECT count(*) AS stored, CASE WHEN count(*) > 0 THEN pg_notify('{CHANNEL}', CAST(min(id) AS text)) END AS told
FROM stored
"""  # noqa: S608 - made of the constants above


_PRESENT = """EXISTS (
        SELECT FROM containers AS c WHERE c.id = s.container_id AND c.namespace_id = s.namespace_id)"""
_NEW = """NOT EXISTS (
        SELECT FROM container_resource_usage AS u WHERE u.container_id = s.container_id AND u.timestamp = s.timestamp
        AND u.timestamp BETWEEN :first AND :last)"""
# By (careful, again): whether to skip deleted containers, and whether some samples may be stored already.
_INSERT = {
    (False, False): text(_insert()),
    (True, False): text(_insert(f"WHERE {_PRESENT}")),
    (False, True): text(_insert(f"WHERE {_NEW}")),
    (True, True): text(_insert(f"WHERE {_PRESENT} AND {_NEW}")),
}
_GONE = text(f"SELECT count(*) FROM pg_temp.staged_usage AS s WHERE NOT {_PRESENT}")  # noqa: S608 - only constants
# If two transactions store the same samples, the second one looks for them after the first has committed. The number of
# locks is limited to 64, and they are taken in one order.
_LOCK = text("""
SELECT pg_advisory_xact_lock(hashtextextended('usage/' || bucket, 0))
FROM (SELECT DISTINCT namespace_id % 64 AS bucket FROM pg_temp.staged_usage ORDER BY 1) AS touched
""")
_RANGE = text("""
SELECT CAST(substring(bound FROM 'FROM \\(''([^'']*)''\\)') AS timestamptz) AS lower,
       CAST(substring(bound FROM 'TO \\(''([^'']*)''\\)') AS timestamptz) AS upper
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
WHERE i.inhparent = to_regclass('public.container_resource_usage') AND NOT i.inhdetachpending
ORDER BY 1
""")
_TARGETS = text("""
SELECT wanted.namespace, wanted.container, c.id, c.namespace_id, c.replicas, c.cpu_request, c.cpu_limit,
       c.memory_request, c.memory_limit
FROM unnest(CAST(:namespaces AS text[]), CAST(:containers AS text[])) AS wanted (namespace, container)
JOIN namespaces AS n ON n.name = wanted.namespace AND n.deleted_at IS NULL
JOIN containers AS c ON c.namespace_id = n.id AND c.name = wanted.container
""")
_STORED = """
SELECT u.id, u.container_id, u.namespace_id, n.name AS namespace, c.name AS container,
       CAST(c.uid AS text) AS container_uid, u.timestamp,
       coalesce(CAST(u.cpu_cores_used AS float8), 0) AS cpu_cores_used,
       CAST(u.cpu_cores_request AS float8), CAST(u.cpu_cores_limit AS float8), CAST(u.cpu_usage_percent AS float8),
       coalesce(u.memory_bytes_used, 0), u.memory_bytes_request, u.memory_bytes_limit,
       CAST(u.memory_usage_percent AS float8), u.network_bytes_rx, u.network_bytes_tx, u.network_packets_rx,
       u.network_packets_tx, u.disk_bytes_used, u.disk_bytes_total, CAST(u.disk_usage_percent AS float8),
       u.filesystem_reads, u.filesystem_writes, u.metadata -> 'programs' AS programs
"""
# Live samples are recent; with these bounds the planner excludes all but one or two partitions.
_SINCE = text(
    _STORED
    + """FROM container_resource_usage AS u
JOIN containers AS c ON c.id = u.container_id
JOIN namespaces AS n ON n.id = c.namespace_id
WHERE u.id >= :first AND u.timestamp >= now() - interval '1 hour' AND u.timestamp < now() + interval '1 hour'
ORDER BY u.id LIMIT :most
"""
)
_NEWEST = (
    _STORED  # noqa: S608 - made of the constant above
    + """FROM containers AS c
JOIN namespaces AS n ON n.id = c.namespace_id
CROSS JOIN LATERAL (
    SELECT * FROM container_resource_usage AS r
    WHERE r.container_id = c.id AND r.timestamp >= :oldest AND r.timestamp < now() + interval '1 hour'
    ORDER BY r.timestamp DESC, r.id DESC LIMIT 1
) AS u
WHERE (CAST(:namespace_id AS bigint) IS NULL OR c.namespace_id = :namespace_id)
  AND (CAST(:visible AS bigint[]) IS NULL OR c.namespace_id = ANY (CAST(:visible AS bigint[])))
  AND (:container = '' OR c.name = :container)
"""
)
_NEWEST_ALL = text(_NEWEST + "ORDER BY n.name, c.name")
_TOP = {
    "cpu": text(_NEWEST + "ORDER BY u.cpu_cores_used DESC NULLS LAST, c.id LIMIT :most"),
    "memory": text(_NEWEST + "ORDER BY u.memory_bytes_used DESC NULLS LAST, c.id LIMIT :most"),
}
_HIGHEST = text(
    "SELECT coalesce(max(id), 0) FROM container_resource_usage "
    "WHERE timestamp >= now() - interval '1 hour' AND timestamp < now() + interval '1 hour'"
)


async def insert(
    transaction: Transaction, samples: Sequence[UsageSample], *, careful: bool = False, again: bool = False
) -> Stored:
    """Writes a batch and returns its result. Must run as the system role.

    `careful` leaves out samples whose container was deleted. `again` leaves out samples that are stored already; no
    sample may then be in the batch twice.

    Raises:
        Aborted: one of the samples cannot be stored (CONTAINER_GONE or NO_PARTITION); nothing was written.
    """
    connection = transaction.connection
    await connection.execute(_STAGE)
    await connection.copy(
        "staged_usage",
        schema="pg_temp",
        columns=_NAMES,
        records=map(msgspec.structs.astuple, samples),
    )
    parameters = {}
    if again:
        await connection.execute(_LOCK)
        times = [sample.timestamp for sample in samples]
        parameters = {"first": min(times), "last": max(times)}
    try:
        found = await connection.execute(_INSERT[careful, again], parameters)
    except asyncpg.IntegrityConstraintViolationError as error:
        reason = {"23503": CONTAINER_GONE, "23514": NO_PARTITION}.get(error.sqlstate or "")
        if reason is None:
            raise
        raise Aborted("a sample of the batch cannot be stored", reason=reason) from None
    stored = int(found.one().stored)
    left_out = len(samples) - stored
    if not again:
        return Stored(stored, gone=left_out)
    gone = int((await connection.execute(_GONE)).scalar_one()) if careful and left_out else 0
    return Stored(stored, gone=gone, repeated=left_out - gone)


async def time_range(transaction: ReadTransaction) -> TimeRange | None:
    """Returns the unbroken range of partitions around the current time; None if that time has no partition."""
    oldest: datetime | None = None
    newest: datetime | None = None
    for lower, upper in (await transaction.connection.execute(_RANGE)).all():
        if lower != newest:
            if newest is not None and newest > transaction.now:
                break
            oldest = lower
        newest = upper
    if oldest is None or newest is None or not oldest <= transaction.now < newest:
        return None
    return TimeRange(oldest, newest)


async def find_targets(
    transaction: ReadTransaction, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], UsageTarget]:
    """Returns the containers that the caller may see, by (namespace, name)."""
    rows = await transaction.connection.execute(
        _TARGETS, {"namespaces": [name[0] for name in names], "containers": [name[1] for name in names]}
    )
    return {
        (row.namespace, row.container): UsageTarget(
            row.id,
            row.namespace_id,
            _cores(row.cpu_request, row.replicas),
            _cores(row.cpu_limit, row.replicas),
            _bytes(row.memory_request, row.replicas),
            _bytes(row.memory_limit, row.replicas),
        )
        for row in rows
    }


async def stored_since(transaction: ReadTransaction, first: int, most: int) -> list[StoredSample]:
    """Returns at most `most` samples of the last hour with an id of at least `first`, ordered by id."""
    return list(_stored(await transaction.connection.execute(_SINCE, {"first": first, "most": most})))


async def highest_id(transaction: ReadTransaction) -> int:
    """Returns the highest id of a sample of the last hour; 0 if there is none."""
    return int((await transaction.connection.execute(_HIGHEST)).scalar_one())


async def newest(
    transaction: ReadTransaction,
    *,
    oldest: datetime,
    namespace_id: int | None,
    container: str,
    visible: frozenset[int] | None,
) -> list[StoredSample]:
    """Returns the newest sample of each container that is not before `oldest`, by namespace and name.

    `namespace_id`, `container` (a name) and `visible` restrict the result, unless they are None or ''.
    """
    parameters = _narrowing(oldest, namespace_id, container, visible)
    return list(_stored(await transaction.connection.execute(_NEWEST_ALL, parameters)))


async def top(
    transaction: ReadTransaction,
    by: str,
    *,
    oldest: datetime,
    namespace_id: int | None,
    visible: frozenset[int] | None,
    most: int,
) -> list[StoredSample]:
    """Returns the same for the `most` containers with the highest usage; `by` is "cpu" or "memory"."""
    parameters = _narrowing(oldest, namespace_id, "", visible) | {"most": most}
    return list(_stored(await transaction.connection.execute(_TOP[by], parameters)))


def _narrowing(
    oldest: datetime, namespace_id: int | None, container: str, visible: frozenset[int] | None
) -> dict[str, Any]:
    return {
        "oldest": oldest,
        "namespace_id": namespace_id,
        "container": container,
        "visible": None if visible is None else sorted(visible),
    }


def _stored(rows: Any) -> Iterator[StoredSample]:
    for row in rows:
        *values, programs = row
        by_program = tuple(ProgramUsage(name, *used) for name, used in (programs or {}).items())
        yield StoredSample(*(*values, by_program))


def _cores(quantity: str | None, replicas: int) -> float | None:
    return Quantity.parse(quantity).millicores * replicas / 1000 if quantity and replicas else None


def _bytes(quantity: str | None, replicas: int) -> int | None:
    return Quantity.parse(quantity).whole * replicas if quantity and replicas else None
