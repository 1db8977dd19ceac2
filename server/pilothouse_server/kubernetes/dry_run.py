"""Server-side dry runs: the cluster's response to the desired state; nothing is changed.

Each noun's `dry_run` tries the writes of the reconciler: the same objects by apply, scale, patch or deletion.
Admission, quota, schema and immutable fields are checked as in a real write. As in the reconciler, fields of other
managers are taken over. A namespace that is not on the cluster yet cannot be checked; that is not a refusal.

All functions raise Refused (Invalid, Forbidden, Conflict if a name is taken) with the cluster's message, Unreachable,
Throttled, Unauthorized.
"""

from __future__ import annotations

from typing import Any

from pilothouse_server.kubernetes.client import ClusterClient, Propagation
from pilothouse_server.kubernetes.objects import KubernetesObject, Resource


async def dry_run_deletion(
    client: ClusterClient,
    resource: Resource[Any],
    found: KubernetesObject,
    propagation: Propagation = "Foreground",
) -> None:
    """Tries the deletion of an object, unless it is being deleted already."""
    metadata = found.metadata
    if metadata.deletion_timestamp is None:
        await client.delete(
            resource,
            metadata.namespace or None,
            metadata.name,
            uid=metadata.uid,
            propagation=propagation,
            dry_run=True,
        )
