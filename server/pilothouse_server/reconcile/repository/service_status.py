"""Reads and writes the observed state of Services for the reconciler, with events.

As with volumes, rows are locked, loaded and compared in the transaction that writes them. An observer skips locked
rows; a worker waits for its single row. Each statement handles all rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.network import operations, repository
from pilothouse_server.network.model import ObservedService, Service
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class Change(msgspec.Struct, frozen=True):
    """A Service as loaded under lock, and the values to write."""

    service: Service
    observed: ObservedService
    observed_generation: int


_LOCK_FREE_UIDS = text("""
SELECT s.id FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id
WHERE s.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED
""")
_WRITE = text("""
UPDATE services AS s
SET status = r.status, reason = NULLIF(r.reason, ''), message = NULLIF(r.message, ''), addresses = r.addresses,
    node_ports = r.node_ports, ready_endpoints = r.ready_endpoints, endpoints = r.endpoints,
    conditions = r.conditions, observed_generation = r.observed_generation, updated_at = now()
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, status text, reason text, message text, addresses jsonb, node_ports jsonb, ready_endpoints int,
    endpoints int, conditions jsonb, observed_generation bigint)
WHERE s.id = r.id
""")
_OF_CLUSTER = text("""
SELECT s.uid::text AS uid FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id
WHERE n.cluster_name = :cluster_name
""")
_KNOWN = text("""
SELECT s.uid::text AS uid FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id
WHERE s.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
""")
_KNOWN_ANYWHERE = text("SELECT uid::text AS uid FROM services WHERE uid = ANY(CAST(:uids AS uuid[]))")
_CHANGING = text("""
SELECT c.uid::text AS uid FROM containers AS c
WHERE c.uid = ANY(CAST(:uids AS uuid[])) AND EXISTS (SELECT FROM service_changes AS s WHERE s.container_id = c.id)
""")
# Rows that somebody holds are taken in the next round.
_MARK = """
WITH chosen AS (
    SELECT s.id FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id
    WHERE n.cluster_name = :cluster_name AND s.stale_since IS {condition}
    ORDER BY s.id LIMIT :rows FOR NO KEY UPDATE OF s SKIP LOCKED)
UPDATE services AS s SET stale_since = {value}
FROM chosen WHERE s.id = chosen.id RETURNING s.id
"""
_STALE_SINCE = "COALESCE((SELECT stale_since FROM clusters WHERE name = :cluster_name), now())"
_MARKS = {
    True: text(_MARK.format(condition="NULL", value=_STALE_SINCE)),
    False: text(_MARK.format(condition="NOT NULL", value="NULL")),
}
_REMAINING = {
    stale: text(
        "SELECT 1 FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id "  # noqa: S608 - our own words
        f"WHERE n.cluster_name = :cluster_name AND s.stale_since IS {'NULL' if stale else 'NOT NULL'} LIMIT 1"
    )
    for stale in (True, False)
}


async def find(transaction: ReadTransaction, service_id: int) -> Service | None:
    """Returns the Service; None where it is gone."""
    return await repository.get(transaction, service_id)


async def lock_id(transaction: Transaction, service_id: int) -> Service | None:
    """Locks and returns a Service, waiting for another transaction's lock; None if it is gone."""
    return await repository.get(transaction, service_id, lock=True)


async def lock_free_uids(transaction: Transaction, cluster_name: str, uids: Sequence[str]) -> list[Service]:
    """Locks and returns those Services of a cluster that nobody holds just now.

    Objects of another cluster may carry their uids.
    """
    keys = {"uids": list(uids), "cluster_name": cluster_name}
    ids = [row.id for row in await transaction.connection.execute(_LOCK_FREE_UIDS, keys)]
    return await repository.get_many(transaction, ids) if ids else []


async def write(transaction: Transaction, changes: Iterable[Change]) -> None:
    """Writes differences, with their events."""
    changed = [
        each
        for each in changes
        if (each.observed, each.observed_generation)
        != (each.service.observed, each.service.observed_generation)
    ]
    if not changed:
        return
    rows = [_row(each) for each in changed]
    await transaction.connection.execute(_WRITE, {"rows": orjson.dumps(rows).decode()})
    for each in changed:
        written = msgspec.structs.replace(
            each.service,
            observed=each.observed,
            observed_generation=each.observed_generation,
            updated_at=transaction.now,
            row_version=each.service.row_version + 1,
        )
        transaction.emit(operations.event(written, "modified", each.service))


async def delete(transaction: Transaction, service: Service) -> None:
    """Removes a Service's row for good, with its tombstone event."""
    await repository.delete_service(transaction, service.id)
    transaction.emit(operations.event(service, "deleted", service))


async def of_cluster(transaction: ReadTransaction, cluster_name: str) -> list[str]:
    """Returns the uids of all Services on a cluster."""
    rows = await transaction.connection.execute(_OF_CLUSTER, {"cluster_name": cluster_name})
    return [row.uid for row in rows]


async def uids_there(transaction: ReadTransaction, cluster_name: str, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are Services of this cluster."""
    keys = {"uids": list(uids), "cluster_name": cluster_name}
    return {row.uid for row in await transaction.connection.execute(_KNOWN, keys)}


async def changing_owners(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are containers whose Services are to be written."""
    rows = await transaction.connection.execute(_CHANGING, {"uids": list(uids)})
    return {row.uid for row in rows}


async def known_service_uids(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are Services, on whichever cluster."""
    rows = await transaction.connection.execute(_KNOWN_ANYWHERE, {"uids": list(uids)})
    return {row.uid for row in rows}


async def mark(transaction: Transaction, cluster_name: str, *, stale: bool, rows: int) -> bool:
    """Marks up to `rows` Services of a cluster stale or fresh, with events. True while others remain."""
    marked = await transaction.connection.execute(_MARKS[stale], {"cluster_name": cluster_name, "rows": rows})
    for service in await repository.get_many(transaction, [row.id for row in marked]):
        transaction.emit(operations.event(service, "modified", service))
    remaining = await transaction.connection.execute(_REMAINING[stale], {"cluster_name": cluster_name})
    return remaining.first() is not None


def _row(change: Change) -> dict[str, Any]:
    observed = change.observed
    return {
        "id": change.service.id,
        "status": observed.status,
        "reason": observed.reason,
        "message": observed.message,
        "addresses": observed.addresses,
        "node_ports": observed.node_ports,
        "ready_endpoints": observed.ready_endpoints,
        "endpoints": observed.endpoints,
        "conditions": msgspec.to_builtins(observed.conditions),
        "observed_generation": change.observed_generation,
    }
