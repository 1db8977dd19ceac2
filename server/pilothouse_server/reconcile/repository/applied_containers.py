"""Results of applying containers, written in one message with the ends of their leases.

The results were computed from the rows as they were loaded. So a row is written only if nobody has written it since
(`row_version`), no other transaction has locked it, and its lease is held; the database function `write_applied` checks
that under the locks. For other rows the result is computed again from the present rows (`container_status`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import uuid4

import msgspec
from sqlalchemy import text

from pilothouse_server.reconcile.repository import applied_objects, container_status
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store import append
from pilothouse_server.store.unit_of_work import Store, described

_WRITE = text(
    "SELECT * FROM write_applied(CAST(:ids AS bigint[]), CAST(:row_versions AS bigint[]), CAST(:owners AS text[]), "
    "CAST(:epochs AS bigint[]), CAST(:seconds AS double precision[]), CAST(CAST(:rows AS text) AS jsonb), "
    "CAST(CAST(:history AS text) AS jsonb), CAST(CAST(:events AS text) AS jsonb), CAST(:messages AS bytea[]), "
    "CAST(:objects AS text[]))"
)


class Applied(msgspec.Struct, frozen=True):
    """An applied container as it was loaded, the values to write, and the time until the next check.

    `objects`: its present objects, see `applied_objects`.
    """

    work: Work
    change: Change
    due_in_seconds: float
    objects: Mapping[str, str] | None


class Written(msgspec.Struct, frozen=True):
    """Ids of the containers that were written, and of containers whose lease another server has."""

    written: frozenset[int]
    lost: frozenset[int]


async def write(store: Store, applied: Sequence[Applied], now: datetime) -> Written:
    """Writes the results of containers that are unchanged since they were loaded, and ends their leases.

    Their events are written, too. `now`: by the database's clock.
    """
    significant = [each.change for each in applied if each.change.significant]
    events = [
        container_status.event(container_status.written(change, now), "modified", before=change.container)
        for change in significant
    ]
    documents, messages = described(events, store.renderers, None)
    put = append.parameters((), documents, messages, None, None, uuid4())
    history = container_status.history_rows(significant, "system")
    async with store.system_call() as connection:
        found = await connection.execute(
            _WRITE,
            {
                "ids": [each.work.resource_id for each in applied],
                "row_versions": [each.change.container.row_version for each in applied],
                "owners": [each.work.lease_owner for each in applied],
                "epochs": [each.work.lease_epoch for each in applied],
                "seconds": [each.due_in_seconds for each in applied],
                "rows": container_status.as_json(
                    {**container_status.observed_row(change), "updated_at": now} for change in significant
                ),
                "history": container_status.as_json(history),
                "events": put["events"],
                "messages": put["messages"],
                "objects": [applied_objects.as_noted(each.objects) for each in applied],
            },
        )
    if significant:
        store.on_committed()
    rows = found.all()
    return Written(
        frozenset(row.id for row in rows if not row.lost), frozenset(row.id for row in rows if row.lost)
    )
