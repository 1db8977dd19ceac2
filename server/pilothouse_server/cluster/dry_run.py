"""Asks a cluster what it would say to a container, and changes nothing: the server-side dry run of all its objects.

Admission, quota, schema and immutable fields are checked as for a real apply. Fields that others own count as taken
over, as the reconciler would. A namespace that is not on the cluster yet cannot be asked about: that is no refusal.
"""

from __future__ import annotations

from pilothouse_server.cluster import manifests
from pilothouse_server.cluster.client import ClusterClient
from pilothouse_server.cluster.errors import NotFound
from pilothouse_server.cluster.objects import DEPLOYMENTS, SERVICES, Manifest
from pilothouse_server.containers.model import Container


async def dry_run_container(client: ClusterClient, container: Container) -> list[Manifest]:
    """The container's Deployment and Services as they would be, whole; empty where its namespace is not there yet.

    Raises Refused (Invalid, Forbidden ...) with the cluster's words, Unreachable, Throttled, Unauthorized.
    """
    try:
        shown = [await client.dry_run(DEPLOYMENTS, manifests.deployment(container), force=True)]
        services = manifests.services(container)
        return shown + [await client.dry_run(SERVICES, service, force=True) for service in services]
    except NotFound:
        return []
