"""Write-backs of clusters: whether they respond, and which containers are stale."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

from pilothouse_server.clusters.model import ClusterStatus
from pilothouse_server.containers import repository
from pilothouse_server.store.unit_of_work import Event, ReadTransaction, Transaction

# Changes with the cluster and its credentials, but not when an encryption key is rotated: the ciphertext stays then.
_VERSIONS = text(
    "SELECT name, uid::text || api_server || COALESCE(encode(sha256(credentials), 'hex'), '') AS version, "
    "status = 'deregistering' AS is_ending, "
    "CASE WHEN status = 'unreachable' THEN COALESCE(message, '') END AS away "
    "FROM clusters WHERE deleted_at IS NULL ORDER BY name"
)

# Both statements test the row itself, not a copy joined to it: if they wait for a transaction that deregisters the
# cluster, PostgreSQL tests the row as that transaction left it.
_HEALTHY = text("""
UPDATE clusters
SET status = CASE WHEN status = 'deregistering' THEN status ELSE 'healthy' END,
    reason = CASE WHEN status = 'deregistering' THEN 'NamespacesRemain' END,
    message = CASE WHEN status = 'deregistering' THEN 'its namespaces are being deleted' END,
    version = :version, last_seen_at = now(), stale_since = NULL,
    updated_at = CASE WHEN status = 'healthy' THEN updated_at ELSE now() END
WHERE name = :name AND deleted_at IS NULL
""")

_SEEN_STATUS = "CASE WHEN status = 'deregistering' THEN status ELSE CAST(:status AS text) END"
_SEEN_MESSAGE = """CAST(:message AS text) || CASE WHEN credentials_expires_at <= now() THEN
    '; its credentials expired on '
    || to_char(credentials_expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') ELSE '' END"""
_UNHEALTHY = text(f"""
UPDATE clusters
SET status = {_SEEN_STATUS}, reason = :reason, message = {_SEEN_MESSAGE},
    stale_since = COALESCE(stale_since, now()), updated_at = now()
WHERE name = :name AND deleted_at IS NULL
  AND (status, reason, message, stale_since IS NULL)
      IS DISTINCT FROM ({_SEEN_STATUS}, CAST(:reason AS text), {_SEEN_MESSAGE}, false)
""")  # noqa: S608 - our own constants

# Rows that another transaction has locked are marked in the next round.
_MARK = """
WITH chosen AS (
    SELECT c.id FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
    WHERE n.cluster_name = :cluster_name AND c.stale_since IS {condition}
    ORDER BY c.id LIMIT :rows FOR NO KEY UPDATE OF c SKIP LOCKED)
UPDATE containers AS c SET stale_since = {value}, updated_at = now()
FROM chosen WHERE c.id = chosen.id RETURNING c.id
"""
_MARK_STALE = text(
    _MARK.format(
        condition="NULL",
        value="COALESCE((SELECT stale_since FROM clusters WHERE name = :cluster_name), now())",
    )
)
_MARK_FRESH = text(_MARK.format(condition="NOT NULL", value="NULL"))

_REMAINING = {
    True: text("""
SELECT 1 FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name AND c.stale_since IS NULL LIMIT 1
"""),
    False: text("""
SELECT 1 FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name AND c.stale_since IS NOT NULL LIMIT 1
"""),
}


class Registered(msgspec.Struct, frozen=True):
    """The registered clusters by name.

    `versions` change when servers must reconnect. `away`: the reasons why clusters do not respond. `some_end`: whether
    a cluster is being deregistered.
    """

    versions: dict[str, str]
    away: dict[str, str]
    some_end: bool


async def registered(transaction: ReadTransaction) -> Registered:
    """Returns the state of the clusters that every server needs."""
    rows = (await transaction.connection.execute(_VERSIONS)).all()
    return Registered(
        versions={row.name: row.version for row in rows},
        away={row.name: row.away for row in rows if row.away is not None},
        some_end=any(row.is_ending for row in rows),
    )


async def write_healthy(transaction: Transaction, name: str, version: str) -> None:
    """Records that the cluster responds."""
    await transaction.connection.execute(_HEALTHY, {"name": name, "version": version[:100]})


async def write_unhealthy(
    transaction: Transaction, name: str, status: ClusterStatus, reason: str, message: str
) -> None:
    """Records that the cluster does not respond, or not to us.

    Its known state is stale from now on.
    """
    await transaction.connection.execute(
        _UNHEALTHY, {"name": name, "status": status, "reason": reason[:100], "message": message}
    )


async def mark(transaction: Transaction, cluster_name: str, *, stale: bool, rows: int) -> bool:
    """Marks up to `rows` containers of a cluster stale or fresh, with events.

    Returns whether others remain.
    """
    statement = _MARK_STALE if stale else _MARK_FRESH
    marked = await transaction.connection.execute(statement, {"cluster_name": cluster_name, "rows": rows})
    await _emit(transaction, [row.id for row in marked])
    remaining = await transaction.connection.execute(_REMAINING[stale], {"cluster_name": cluster_name})
    return remaining.first() is not None


async def _emit(transaction: Transaction, ids: Sequence[int]) -> None:
    if not ids:
        return
    for container in await repository.get_many(transaction, ids):
        transaction.emit(
            Event(
                resource_type="container",
                resource_id=container.id,
                namespace_id=container.namespace_id,
                name=container.name,
                kind="modified",
                entity=container,
                labels=container.labels,
                status=container.observed.status,
                labels_before=container.labels,
                status_before=container.observed.status,
            )
        )
