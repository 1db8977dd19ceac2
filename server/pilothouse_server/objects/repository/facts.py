"""SQL for the facts that the rules of carried objects need: settings of their cluster, containers, autoscalers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import ReadTransaction

_SETTINGS = text(
    "SELECT object_kinds, shared_gateways, forbid_blocking_budgets FROM clusters WHERE name = :cluster_name"
)
_WORKLOADS = text("""
SELECT COALESCE(spec -> 'workload' ->> 'type', 'deployment') AS type, kubernetes_name FROM containers
WHERE namespace_id = :namespace_id AND deletion_requested_at IS NULL
  AND (CAST(:name AS text) = '' OR kubernetes_name = CAST(:name AS text))
""")
_SECRET_FIELDS = text("""
SELECT c.name AS cluster_name, CASE WHEN k.api_version LIKE '%/%' THEN split_part(k.api_version, '/', 1) ELSE '' END
    AS api_group, k.kind, k.secret_paths
FROM clusters AS c
CROSS JOIN LATERAL jsonb_to_recordset(c.object_kinds) AS k (api_version text, kind text, secret_paths jsonb)
WHERE k.secret_paths IS NOT NULL
""")
# The pods of a container have the container's labels and its `pod_labels`.
_SELECTED = text("""
SELECT CAST(sum(replicas) AS bigint) FROM containers
WHERE namespace_id = :namespace_id AND deletion_requested_at IS NULL
  AND (labels || COALESCE(spec -> 'pod_labels', '{}')) @> CAST(CAST(:labels AS text) AS jsonb)
""")
# Autoscalers and their target containers. `maxReplicas` may be any number, because callers write the document.
_MISCOUNTED = text("""
WITH wanted AS (
    SELECT o.namespace_id, o.document::jsonb #>> '{spec,scaleTargetRef,kind}' AS kind,
        o.document::jsonb #>> '{spec,scaleTargetRef,name}' AS name,
        max(CASE WHEN jsonb_typeof(o.document::jsonb #> '{spec,maxReplicas}') = 'number'
            THEN least(greatest(trunc(CAST(o.document::jsonb #>> '{spec,maxReplicas}' AS numeric)), 0), 2147483647)
            ELSE 0 END) AS most
    FROM objects AS o
    WHERE o.api_group = 'autoscaling' AND o.kind = 'HorizontalPodAutoscaler' AND o.deletion_requested_at IS NULL
      AND (CAST(:namespace_id AS bigint) IS NULL OR o.namespace_id = CAST(:namespace_id AS bigint))
    GROUP BY 1, 2, 3),
targeted AS (
    SELECT namespace_id, name FROM wanted
    UNION SELECT CAST(:namespace_id AS bigint), unnest(CAST(:names AS text[])))
SELECT c.id, CAST(coalesce(w.most, 0) AS integer) AS most
FROM targeted AS t
JOIN containers AS c ON c.namespace_id = t.namespace_id AND c.kubernetes_name = t.name
LEFT JOIN wanted AS w ON w.namespace_id = c.namespace_id AND w.name = c.kubernetes_name
    AND w.kind = CASE WHEN c.spec -> 'workload' ->> 'type' = 'stateful_set' THEN 'StatefulSet' ELSE 'Deployment' END
WHERE c.deletion_requested_at IS NULL
  AND coalesce(c.spec -> 'workload' ->> 'type', 'deployment') IN ('deployment', 'stateful_set')
  AND coalesce(CAST(c.spec ->> 'most_replicas' AS bigint), 0) <> coalesce(w.most, 0)
ORDER BY c.id
""")


async def secret_fields(transaction: ReadTransaction) -> list[tuple[str, str, str, list[str]]]:
    """Returns the secret paths of the kinds that clusters open, with cluster, group and kind."""
    rows = (await transaction.connection.execute(_SECRET_FIELDS)).all()
    return [(row.cluster_name, row.api_group, row.kind, row.secret_paths) for row in rows]


async def cluster_settings(transaction: ReadTransaction, cluster_name: str) -> Mapping[str, Any] | None:
    """Returns the settings of a cluster for carried objects; None if the caller may not see the cluster."""
    row = (await transaction.connection.execute(_SETTINGS, {"cluster_name": cluster_name})).one_or_none()
    if row is None:
        return None
    return {
        "object_kinds": row.object_kinds,
        "shared_gateways": row.shared_gateways,
        "forbid_blocking_budgets": row.forbid_blocking_budgets,
    }


async def workloads(transaction: ReadTransaction, namespace_id: int, name: str) -> list[tuple[Any, str]]:
    """Returns type and name on the cluster of a namespace's containers; all of them, or those with this name."""
    found = await transaction.connection.execute(_WORKLOADS, {"namespace_id": namespace_id, "name": name})
    return [(row.type, row.kubernetes_name) for row in found]


async def miscounted(
    transaction: ReadTransaction, namespace_id: int | None = None, names: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Returns the containers whose counted pods differ from the number that their autoscalers allow, with that
    number.

    With a namespace: its containers that have an autoscaler or one of these names. None: the containers with
    autoscalers of all namespaces.
    """
    keys = {"namespace_id": namespace_id, "names": list(names)}
    return [(row.id, row.most) for row in await transaction.connection.execute(_MISCOUNTED, keys)]


async def selected_pods(
    transaction: ReadTransaction, namespace_id: int, labels: Mapping[str, str]
) -> int | None:
    """Returns how many pods have these labels; None if no container's pods have them."""
    keys = {"namespace_id": namespace_id, "labels": orjson.dumps(labels).decode()}
    found: int | None = (await transaction.connection.execute(_SELECTED, keys)).scalar_one()
    return found
