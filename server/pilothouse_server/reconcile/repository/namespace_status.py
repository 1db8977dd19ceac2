"""Write-backs of namespaces: what became of them on their cluster."""

from __future__ import annotations

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.namespaces import operations as rules
from pilothouse_server.namespaces import repository as namespaces
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_LOCK = text("SELECT 1 FROM namespaces WHERE id = :id AND deleted_at IS NULL FOR NO KEY UPDATE")

_WRITE = text("""
UPDATE namespaces
SET phase = NULLIF(CAST(:phase AS text), ''), reason = NULLIF(CAST(:reason AS text), ''),
    message = NULLIF(CAST(:message AS text), ''), conditions = CAST(CAST(:conditions AS text) AS jsonb),
    observed_generation = :observed_generation, updated_at = now()
WHERE id = :id
""")

_HOLDS = text("""
SELECT 1 FROM containers WHERE namespace_id = :id
UNION ALL SELECT 1 FROM config_maps WHERE namespace_id = :id
UNION ALL SELECT 1 FROM secrets WHERE namespace_id = :id
UNION ALL SELECT 1 FROM volumes WHERE namespace_id = :id
LIMIT 1
""")

_BY_KUBERNETES_NAMES = text("""
SELECT kubernetes_name, id, uid::text AS uid FROM namespaces
WHERE cluster_name = :cluster_name AND deleted_at IS NULL
""")


class Home(msgspec.Struct, frozen=True):
    """A namespace as the cluster's objects refer to it."""

    id: int
    uid: str


async def lock(transaction: Transaction, namespace_id: int) -> Namespace | None:
    """Lock and load a living namespace."""
    if (await transaction.connection.execute(_LOCK, {"id": namespace_id})).first() is None:
        return None
    return await namespaces.get(transaction, namespace_id)


async def write(
    transaction: Transaction,
    namespace: Namespace,
    *,
    phase: str,
    reason: str,
    message: str,
    conditions: tuple[Condition, ...],
    observed_generation: int,
) -> Namespace:
    """Write what the cluster showed of a locked namespace, with its event, if anything differs."""
    written = msgspec.structs.replace(
        namespace,
        phase=phase[:20],
        reason=reason[:100],
        message=message,
        conditions=conditions,
        observed_generation=observed_generation,
    )
    if written == namespace:
        return namespace
    written = msgspec.structs.replace(written, updated_at=transaction.now)
    parameters = {
        "id": namespace.id,
        "phase": written.phase,
        "reason": written.reason,
        "message": written.message,
        "conditions": orjson.dumps(msgspec.to_builtins(conditions)).decode(),
        "observed_generation": observed_generation,
    }
    await transaction.connection.execute(_WRITE, parameters)
    transaction.emit(rules.event(written, "modified", namespace))
    return written


async def holds_containers(transaction: ReadTransaction, namespace_id: int) -> bool:
    """Whether containers or configuration are still in it, those being deleted included."""
    return (await transaction.connection.execute(_HOLDS, {"id": namespace_id})).first() is not None


async def delete(transaction: Transaction, namespace: Namespace) -> None:
    """End a locked namespace, with its tombstone event."""
    await rules.end(transaction, namespace)


async def homes(transaction: ReadTransaction, cluster_name: str) -> dict[str, Home]:
    """Kubernetes name → namespace, of a cluster's living namespaces."""
    rows = await transaction.connection.execute(_BY_KUBERNETES_NAMES, {"cluster_name": cluster_name})
    return {row.kubernetes_name: Home(row.id, row.uid) for row in rows}
