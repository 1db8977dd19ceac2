"""The reconciler's tables, as the nouns' statements read them.

These are its queue, and the leases of cluster observers. Only `reconcile/` writes these tables. The conditions refer to
the row of `NAMESPACES` that a statement joins.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, DateTime, Integer, String, column, exists, func, or_, table

from pilothouse_server.store.references import NAMESPACES

# The prefix of the lease of a cluster's observer, before the cluster's name.
OBSERVE: Final = "observe/"

_WORK = table(
    "reconcile_work",
    column("resource_type", String(20)),
    column("resource_id", BigInteger()),
    column("attempts", Integer()),
    column("due_at", DateTime(timezone=True)),
    column("leased_until", DateTime(timezone=True)),
    schema="public",
)
_LEASES = table(
    "leases",
    column("name", String(100)),
    column("owner", String(100)),
    column("expires_at", DateTime(timezone=True)),
    schema="public",
)
_NOW = func.statement_timestamp()
# The namespace is due for a check on its cluster, is being checked, or its last check failed.
NAMESPACE_IS_LOOKED_AT = exists().where(
    _WORK.c.resource_type == "namespace",
    _WORK.c.resource_id == NAMESPACES.c.id,
    or_(_WORK.c.attempts > 0, _WORK.c.due_at <= _NOW, _WORK.c.leased_until > _NOW),
)
# A server watches the namespace's cluster.
CLUSTER_IS_WATCHED = exists().where(
    _LEASES.c.name == func.concat(OBSERVE, NAMESPACES.c.cluster_name),
    _LEASES.c.owner.is_not(None),
    _LEASES.c.expires_at > _NOW,
)
