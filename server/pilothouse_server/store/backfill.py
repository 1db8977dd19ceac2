"""Backfill: renders messages that are missing or of an older format.

It works in small batches and emits no events. A message is only ever replaced by one of a later version of its row, or
of a newer format, so the order of concurrent writers does not matter. See `rendered`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import text

from pilothouse_server.store.rendered import Rendered, Versioned
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

_UNREADY = text("""
SELECT r.resource_id AS id FROM watched_rows AS r
LEFT JOIN rendered_messages AS m ON m.resource_type = r.resource_type AND m.resource_id = r.resource_id
WHERE r.resource_type = :resource_type AND r.resource_id > :after
  AND (m.resource_id IS NULL OR m.row_version <> r.row_version OR m.format < :format)
ORDER BY r.resource_id LIMIT :rows
""")
_KEEP = text("""
INSERT INTO rendered_messages AS m (resource_type, resource_id, namespace_id, row_version, format, message)
SELECT r.resource_type, r.resource_id, r.namespace_id, r.row_version, :format, w.message
FROM unnest(CAST(:ids AS bigint[]), CAST(:versions AS bigint[]), CAST(:messages AS bytea[])) AS w(id, version, message)
JOIN watched_rows AS r
  ON r.resource_type = :resource_type AND r.resource_id = w.id AND r.row_version = w.version
ORDER BY r.resource_id
ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
SET row_version = EXCLUDED.row_version, format = EXCLUDED.format, message = EXCLUDED.message
WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format)
RETURNING m.resource_id
""")
BACKFILL_SECONDS = 300.0
_BATCH_ROWS = 100
# The most batches of a type in one run, each of about a second's work; the next run continues.
_MOST_BATCHES = 50

# Reads resources by their ids; missing ones are left out.
Loader = Callable[[ReadTransaction, Sequence[int]], Awaitable[Sequence[Any]]]


class Watched(NamedTuple):
    """How resources of a type are loaded and rendered.

    `format` is that of the rendered message.
    """

    load: Loader
    render: Callable[[Any], Rendered]
    format: int


async def backfill_messages(store: Store, watched: Mapping[str, Watched]) -> int:
    """Renders missing and outdated messages; returns the number that were stored."""
    return sum([await _backfill(store, name, each) for name, each in watched.items()])


async def _backfill(store: Store, resource_type: str, watched: Watched) -> int:
    place = {"resource_type": resource_type, "format": watched.format}
    kept = after = 0
    for _ in range(_MOST_BATCHES):
        async with store.system_read() as transaction:
            rows = await transaction.connection.execute(
                _UNREADY, {**place, "after": after, "rows": _BATCH_ROWS}
            )
            ids = [row.id for row in rows]
            values = await watched.load(transaction, ids) if ids else []
        kept += await _keep(store, place, [(value, watched.render(value)) for value in values])
        if len(ids) < _BATCH_ROWS:
            break
        after = ids[-1]
    return kept


async def _keep(
    store: Store,
    place: Mapping[str, Any],
    rendered: Sequence[tuple[Versioned, Rendered]],
) -> int:
    rendered = [(value, message) for value, message in rendered if message.kept_bytes]
    if not rendered:
        return 0
    parameters = {
        **place,
        "ids": [value.id for value, _ in rendered],
        "versions": [value.row_version for value, _ in rendered],
        "messages": [message.kept for _, message in rendered],
    }
    async with store.system_call() as connection:
        return len((await connection.execute(_KEEP, parameters)).all())
