"""Resources that must have a Service, config map, secret or quota on a cluster."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text

from pilothouse_server.store.unit_of_work import ReadTransaction

Owner = Literal["container", "service", "config_map", "secret", "namespace"]

# Resources that were never applied, or are being deleted, have due work that handles their objects.
_OWNERS = text("""
SELECT 'container' AS type, c.id, CAST(c.uid AS text) AS uid
FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name AND n.deleted_at IS NULL AND c.observed_generation > 0
  AND c.deletion_requested_at IS NULL
  AND EXISTS (SELECT FROM port_mappings AS p WHERE p.container_id = c.id AND p.service_type <> 'None')
UNION ALL
SELECT 'service', s.id, CAST(s.uid AS text)
FROM services AS s JOIN namespaces AS n ON n.id = s.namespace_id
WHERE n.cluster_name = :cluster_name AND n.deleted_at IS NULL AND s.observed_generation > 0
  AND s.deletion_requested_at IS NULL AND s.owner IS NULL
UNION ALL
SELECT 'config_map', m.id, CAST(m.uid AS text)
FROM config_maps AS m JOIN namespaces AS n ON n.id = m.namespace_id
WHERE n.cluster_name = :cluster_name AND n.deleted_at IS NULL AND m.observed_generation > 0
  AND m.deletion_requested_at IS NULL
UNION ALL
SELECT 'secret', s.id, CAST(s.uid AS text)
FROM secrets AS s JOIN namespaces AS n ON n.id = s.namespace_id
WHERE n.cluster_name = :cluster_name AND n.deleted_at IS NULL AND s.observed_generation > 0
  AND s.deletion_requested_at IS NULL
UNION ALL
SELECT 'namespace', n.id, CAST(n.uid AS text)
FROM namespaces AS n
WHERE n.cluster_name = :cluster_name AND n.deleted_at IS NULL AND n.observed_generation > 0
  AND n.deletion_requested_at IS NULL AND n.resource_quota IS NOT NULL
""")


async def owners(transaction: ReadTransaction, cluster_name: str) -> dict[str, tuple[Owner, int]]:
    """Returns uid → type and id of all these resources of a cluster."""
    rows = await transaction.connection.execute(_OWNERS, {"cluster_name": cluster_name})
    return {row.uid: (row.type, row.id) for row in rows}
