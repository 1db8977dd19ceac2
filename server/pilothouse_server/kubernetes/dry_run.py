"""Server-side dry runs: what a cluster would answer to what is wanted; nothing is changed.

Each noun's `dry_run` tries out what the reconciler would write for it: the same objects by apply, scale, patch or
deletion. Admission, quota, schema and immutable fields are checked as in earnest. Fields that others own count as taken
over, as the reconciler would. A namespace that is not on the cluster yet cannot be asked about: that is no refusal.

All raise Refused (Invalid, Forbidden, Conflict where a name is taken) with the cluster's words, Unreachable,
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
