"""The rows of carried objects as the reconciler reads and writes them: the cluster's state of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import text

from pilothouse_server.objects import operations, references, repository
from pilothouse_server.objects.model import CarriedObject, ObservedObject
from pilothouse_server.reconcile.repository.observed_rows import ObservedRows
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class UsedKind(msgspec.Struct, frozen=True, order=True):
    """A kind that a cluster must have objects of, in the newest version in use."""

    api_version: str
    kind: str

    @property
    def group(self) -> str:
        """The group of the kind."""
        return self.api_version.rpartition("/")[0]


_LOCK = {
    wait: text(
        "SELECT id, row_version FROM objects WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id "  # noqa: S608 - our own words
        f"FOR NO KEY UPDATE{'' if wait else ' SKIP LOCKED'}"
    )
    for wait in (True, False)
}
_WRITE = text("""
UPDATE objects AS o
SET status = r.status, reason = NULLIF(r.reason, ''), message = NULLIF(r.message, ''), health = r.health,
    addresses = r.addresses, backends = r.backends, certificates = r.certificates,
    observed_status = r.observed_status, conditions = r.conditions, contests = r.contests,
    observed_generation = r.observed_generation, updated_at = now()
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, status text, reason text, message text, health text, addresses jsonb, backends jsonb,
    certificates jsonb, observed_status text, conditions jsonb, contests jsonb, observed_generation bigint)
WHERE o.id = r.id
""")
_IN_USE = text("""
SELECT o.api_group, o.kind, max(o.api_version) AS api_version, count(*) AS number
FROM objects AS o JOIN namespaces AS n ON n.id = o.namespace_id
WHERE n.cluster_name = :cluster_name GROUP BY o.api_group, o.kind ORDER BY number DESC, o.api_group, o.kind LIMIT :most
""")
_APPLIED = text("""
SELECT o.uid::text AS uid, w.applied_objects ->> (o.kind || '/' || o.name) AS mark
FROM objects AS o JOIN namespaces AS n ON n.id = o.namespace_id
LEFT JOIN reconcile_work AS w ON w.resource_type = 'object' AND w.resource_id = o.id
WHERE n.cluster_name = :cluster_name AND o.api_group = :api_group AND o.kind = :kind
  AND (o.observed_generation > 0 OR o.reason = 'KindNotFound')
  AND o.deletion_requested_at IS NULL
""")
_ENDPOINTS = text("""
SELECT namespace_id, name, ready_endpoints FROM services
WHERE namespace_id = ANY(CAST(:namespace_ids AS bigint[])) AND deletion_requested_at IS NULL
""")
_LEADING = text("""
SELECT o.uid::text AS uid FROM objects AS o
WHERE o.namespace_id = ANY(CAST(:namespace_ids AS bigint[])) AND o.kind IN ('Ingress', 'HTTPRoute')
""")


def _row(_carried: CarriedObject, observed: ObservedObject) -> dict[str, Any]:
    return {
        "status": observed.status,
        "reason": observed.reason,
        "message": observed.message,
        "health": observed.health,
        "addresses": observed.addresses,
        "backends": msgspec.to_builtins(observed.backends),
        "certificates": msgspec.to_builtins(observed.certificates),
        "observed_status": observed.observed_status,
        "conditions": msgspec.to_builtins(observed.conditions),
        "contests": msgspec.to_builtins(observed.contests),
    }


OBJECTS: ObservedRows[CarriedObject, ObservedObject] = ObservedRows(
    "objects", repository.get, repository.get_many, operations.event, _WRITE, _row, work="object"
)


async def lock_found(
    transaction: Transaction, found: Mapping[int, CarriedObject], *, wait: bool
) -> dict[int, CarriedObject]:
    """Locks objects that were loaded before, and returns their present state by id.

    Deleted objects are left out, and with `wait=False` also locked ones. Most have not changed since they were loaded,
    and are not read again.
    """
    locked = (await transaction.connection.execute(_LOCK[wait], {"ids": sorted(found)})).all()
    same = {row.id: found[row.id] for row in locked if found[row.id].row_version == row.row_version}
    changed = [row.id for row in locked if row.id not in same]
    read = await repository.get_many(transaction, changed) if changed else []
    return same | {int(each.id): each for each in read}


async def delete(transaction: Transaction, carried: CarriedObject) -> None:
    """Removes an object's row permanently, with its tombstone event."""
    await repository.delete_object(transaction, carried.id)
    transaction.emit(operations.event(carried, "deleted", carried))


async def in_use(transaction: ReadTransaction, cluster_name: str, most: int) -> list[UsedKind]:
    """Returns the kinds that a cluster must have objects of, those with the most objects first."""
    rows = await transaction.connection.execute(_IN_USE, {"cluster_name": cluster_name, "most": most})
    return [UsedKind(row.api_version, row.kind) for row in rows]


async def applied(
    transaction: ReadTransaction, cluster_name: str, api_group: str, kind: str
) -> dict[str, str]:
    """Returns uid → last applied fingerprint of a kind's objects that must exist.

    The fingerprint is '' if none is stored. Objects that wait for the kind to be installed are included.
    """
    keys = {"cluster_name": cluster_name, "api_group": api_group, "kind": kind}
    return {row.uid: row.mark or "" for row in await transaction.connection.execute(_APPLIED, keys)}


async def endpoints(
    transaction: ReadTransaction, objects: Iterable[CarriedObject]
) -> dict[int, dict[str, int]]:
    """Returns the ready endpoints of Services by namespace and name.

    Only namespaces in which one of `objects` routes to Services are read.
    """
    found: dict[int, dict[str, int]] = {}
    leading_in = {
        int(each.namespace_id) for each in objects if (each.api_group, each.kind) in references.LEADING
    }
    if leading_in:
        keys = {"namespace_ids": sorted(leading_in)}
        for row in await transaction.connection.execute(_ENDPOINTS, keys):
            found.setdefault(row.namespace_id, {})[row.name] = row.ready_endpoints
    return found


async def leading(transaction: ReadTransaction, namespace_ids: Collection[int]) -> list[str]:
    """Returns the uids of the objects of namespaces that route to Services."""
    rows = await transaction.connection.execute(_LEADING, {"namespace_ids": sorted(namespace_ids)})
    return [row.uid for row in rows]
