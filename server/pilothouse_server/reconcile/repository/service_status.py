"""The rows of Services as the reconciler reads and writes them: the cluster's state of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import text

from pilothouse_server.network import operations, repository
from pilothouse_server.network.model import ObservedService, Service
from pilothouse_server.reconcile.repository.observed_rows import ObservedRows
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

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
_CHANGING = text("""
SELECT c.uid::text AS uid FROM containers AS c
WHERE c.uid = ANY(CAST(:uids AS uuid[])) AND EXISTS (SELECT FROM service_changes AS s WHERE s.container_id = c.id)
""")


def _row(_service: Service, observed: ObservedService) -> dict[str, Any]:
    return {
        "status": observed.status,
        "reason": observed.reason,
        "message": observed.message,
        "addresses": observed.addresses,
        "node_ports": observed.node_ports,
        "ready_endpoints": observed.ready_endpoints,
        "endpoints": observed.endpoints,
        "conditions": msgspec.to_builtins(observed.conditions),
    }


SERVICES: ObservedRows[Service, ObservedService] = ObservedRows(
    "services", repository.get, repository.get_many, operations.event, _WRITE, _row, work="service"
)


async def delete(transaction: Transaction, service: Service) -> None:
    """Removes a Service's row permanently, with its tombstone event."""
    await repository.delete_service(transaction, service.id)
    transaction.emit(operations.event(service, "deleted", service))


async def changing_owners(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (UUIDs) that are containers with Services to write."""
    rows = await transaction.connection.execute(_CHANGING, {"uids": list(uids)})
    return {row.uid for row in rows}
