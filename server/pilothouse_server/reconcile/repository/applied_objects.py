"""The objects of each resource at its last apply: fingerprints by kind and name.

The fingerprints (`kubernetes.fingerprints`) are in the resource's work row, which lives as long as the resource. They
are written in the transaction that ends the lease under which the objects were applied. A resource without
fingerprints is compared once by its content.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import ReadTransaction

Key = tuple[str, int]
# Sorts before all others.
FIRST: Key = ("", 0)
_decode = msgspec.json.Decoder(dict[str, str]).decode

# Due work is done anyway, and failed work when its pause ends.
_PAGE = text("""
SELECT w.resource_type, w.resource_id, n.kubernetes_name, c.uid::text AS container_uid,
    w.applied_objects::text AS applied_objects
FROM reconcile_work AS w
JOIN namespaces AS n ON n.id = w.namespace_id
LEFT JOIN containers AS c ON w.resource_type = 'container' AND c.id = w.resource_id
WHERE w.cluster_name = :cluster_name AND w.resource_type = ANY(CAST(:types AS text[]))
  AND (w.resource_type, w.resource_id) > (:after_type, :after_id)
  AND w.attempts = 0 AND w.due_at > clock_timestamp()
ORDER BY w.resource_type, w.resource_id LIMIT :rows
""")

_WAITING = text("""
SELECT count(*) AS waiting FROM (
    SELECT 1 FROM reconcile_work
    WHERE cluster_name = :cluster_name AND due_at <= clock_timestamp() LIMIT :most) AS due
""")

_OF_RESOURCES = text("""
SELECT resource_id, applied_objects::text AS applied_objects FROM reconcile_work
WHERE resource_type = :type AND resource_id = ANY(CAST(:ids AS bigint[])) AND applied_objects IS NOT NULL
""")


class Applied(msgspec.Struct, frozen=True):
    """A resource and its objects at the last apply; `objects` is None if they were not stored."""

    key: Key
    kubernetes_namespace: str
    container_uid: str
    objects: dict[str, str] | None


def as_noted(objects: Mapping[str, str] | None) -> str | None:
    """Returns the stored form of fingerprints by kind and name; None leaves the stored ones."""
    return None if objects is None else msgspec.json.encode(objects).decode()


async def page(
    transaction: ReadTransaction, cluster_name: str, types: Collection[str], after: Key, *, rows: int
) -> list[Applied]:
    """Returns up to `rows` resources of a cluster after `after`, in the order of their keys.

    Resources with work that is due, was requested again while in hand, or failed, are left out: their work checks them.
    """
    keys: dict[str, object] = {"cluster_name": cluster_name, "types": sorted(types), "rows": rows}
    keys |= {"after_type": after[0], "after_id": after[1]}
    return [
        Applied(
            (row.resource_type, row.resource_id),
            row.kubernetes_name,
            row.container_uid or "",
            None if row.applied_objects is None else _decode(row.applied_objects),
        )
        for row in await transaction.connection.execute(_PAGE, keys)
    ]


async def of_resources(
    transaction: ReadTransaction, type_: str, ids: Sequence[int]
) -> dict[int, dict[str, str]]:
    """Returns the objects of resources of a type at the last apply, by id.

    Those without stored ones are left out.
    """
    rows = await transaction.connection.execute(_OF_RESOURCES, {"type": type_, "ids": list(ids)})
    return {row.resource_id: _decode(row.applied_objects) for row in rows}


async def waiting(transaction: ReadTransaction, cluster_name: str, most: int) -> int:
    """Returns the number of due work rows of a cluster, counted up to `most`."""
    rows = await transaction.connection.execute(_WAITING, {"cluster_name": cluster_name, "most": most})
    return int(rows.one().waiting)
