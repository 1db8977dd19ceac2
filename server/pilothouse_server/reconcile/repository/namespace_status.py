"""Namespaces as the reconciler reads and writes them: their state on the cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.identity.access.operations import grants
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.namespaces import operations, repository
from pilothouse_server.namespaces.model import Namespace, PodDemand
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_LOCK = text("SELECT 1 FROM namespaces WHERE id = :id AND deleted_at IS NULL FOR NO KEY UPDATE")

_WRITE = text("""
UPDATE namespaces
SET phase = NULLIF(CAST(:phase AS text), ''), reason = NULLIF(CAST(:reason AS text), ''),
    message = NULLIF(CAST(:message AS text), ''), conditions = CAST(CAST(:conditions AS text) AS jsonb),
    pod_security_level = :pod_security_level, observed_generation = :observed_generation, updated_at = now()
WHERE id = :id
""")

_RESOURCES = text("""
SELECT 1 FROM containers WHERE namespace_id = :id
UNION ALL SELECT 1 FROM config_maps WHERE namespace_id = :id
UNION ALL SELECT 1 FROM secrets WHERE namespace_id = :id
UNION ALL SELECT 1 FROM services WHERE namespace_id = :id
UNION ALL SELECT 1 FROM volumes WHERE namespace_id = :id
LIMIT 1
""")

# An autoscaler may create more pods than are desired now. A Job, and each run of a CronJob, counts with the number of
# its parallel pods.
_DEMAND = text("""
SELECT coalesce(sum(greatest(c.replicas, 1, CAST(c.spec ->> 'most_replicas' AS bigint),
        CAST(c.spec #>> '{workload,parallelism}' AS bigint),
        CAST(c.spec #>> '{workload,job,parallelism}' AS bigint))), 0) AS pods,
    coalesce(max(c.quota_cpu_millicores), 0) AS cpu, coalesce(max(c.quota_memory_bytes), 0) AS memory
FROM containers AS c WHERE c.namespace_id = :id
""")

_BY_KUBERNETES_NAMES = text("""
SELECT kubernetes_name, id, uid::text AS uid, pod_security_level AS level FROM namespaces
WHERE cluster_name = :cluster_name AND deleted_at IS NULL
""")

# Ended namespaces count as known: the objects that remain on a deregistered cluster were left there on purpose.
_KNOWN = text("SELECT uid::text AS uid FROM namespaces WHERE uid = ANY(CAST(:uids AS uuid[]))")


class NamespaceKey(msgspec.Struct, frozen=True):
    """A namespace as the cluster's objects refer to it, and the level of Pod Security in its status."""

    id: int
    uid: str
    level: str = ""


async def find(transaction: ReadTransaction, namespace_id: int) -> Namespace | None:
    """Returns the namespace; None if it has ended."""
    return await repository.get(transaction, namespace_id)


def is_on_cluster(namespace: Namespace) -> bool:
    """Returns whether the namespace was applied before, and is not known to be foreign."""
    return namespace.observed_generation > 0 and not operations.is_foreign(namespace)


def may_hold_ours(namespace: Namespace) -> bool:
    """Returns whether our objects may be in the Kubernetes namespace: it was applied now or before.

    A namespace that is being adopted may have been ours before it was lost, and its generations start again.
    """
    return namespace.observed_generation > 0 or namespace.adopted


async def refusals(transaction: ReadTransaction, namespace_ids: Collection[int]) -> dict[int, Condition]:
    """Returns, for each namespace that its cluster refuses, the condition with the reason."""
    if not namespace_ids:
        return {}
    namespaces = await repository.get_many(transaction, sorted(namespace_ids))
    return {
        int(namespace.id): condition
        for namespace in namespaces
        for condition in namespace.conditions
        if condition.type == APPLIED and condition.status == "False"
    }


async def lock(transaction: Transaction, namespace_id: int) -> Namespace | None:
    """Locks and returns a namespace that has not ended; None if there is none."""
    if (await transaction.connection.execute(_LOCK, {"id": namespace_id})).first() is None:
        return None
    return await repository.get(transaction, namespace_id)


async def write(transaction: Transaction, namespace: Namespace, written: Namespace) -> None:
    """Writes the cluster's state of a locked namespace, with its event, if anything differs."""
    written = msgspec.structs.replace(
        written,
        phase=written.phase[:20],
        reason=written.reason[:100],
        pod_security_level=written.pod_security_level[: operations.LONGEST_LEVEL],
    )
    if written == namespace:
        return
    written = msgspec.structs.replace(
        written, updated_at=transaction.now, row_version=namespace.row_version + 1
    )
    parameters = {
        "id": namespace.id,
        "phase": written.phase,
        "reason": written.reason,
        "message": written.message,
        "conditions": orjson.dumps(msgspec.to_builtins(written.conditions)).decode(),
        "pod_security_level": written.pod_security_level,
        "observed_generation": written.observed_generation,
    }
    await transaction.connection.execute(_WRITE, parameters)
    if operations.is_foreign(written) != operations.is_foreign(namespace):
        # Servers cache callers with the names of the namespaces that are foreign.
        await grants.callers_changed(transaction)
    transaction.emit(operations.event(written, "modified", namespace))


async def is_empty(transaction: ReadTransaction, namespace_id: int) -> bool:
    """Returns whether the namespace contains no resource.

    Resources that are being deleted count.
    """
    return (await transaction.connection.execute(_RESOURCES, {"id": namespace_id})).first() is None


async def pod_demand(transaction: ReadTransaction, namespace_id: int) -> PodDemand:
    """Returns the pods and amounts that the containers of a namespace request of its cluster."""
    row = (await transaction.connection.execute(_DEMAND, {"id": namespace_id})).one()
    return PodDemand(int(row.pods), row.cpu, row.memory)


async def delete(transaction: Transaction, namespace: Namespace) -> None:
    """Ends a locked namespace, with its tombstone event."""
    await operations.end(transaction, namespace)


async def by_kubernetes_name(transaction: ReadTransaction, cluster_name: str) -> dict[str, NamespaceKey]:
    """Returns a cluster's living namespaces by their Kubernetes names."""
    rows = await transaction.connection.execute(_BY_KUBERNETES_NAMES, {"cluster_name": cluster_name})
    return {row.kubernetes_name: NamespaceKey(row.id, row.uid, row.level) for row in rows}


async def known_namespace_uids(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (must be UUIDs) that are namespaces, including ended ones."""
    rows = await transaction.connection.execute(_KNOWN, {"uids": list(uids)})
    return {row.uid for row in rows}
