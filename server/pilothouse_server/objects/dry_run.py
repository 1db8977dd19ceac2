"""Checks an object on the cluster by a dry run: the part of `validate_only` that needs the cluster."""

from __future__ import annotations

from contextlib import suppress

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.conditions import cluster_warnings
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.objects import kinds, manifests
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.values.resources import ObjectWarning


async def check_on_cluster(
    connect: Connect, discovery: KindDiscovery, carried: CarriedObject
) -> tuple[ObjectWarning, ...]:
    """Tries an object on the cluster, or its deletion if it is being deleted; changes nothing.

    Returns the warnings of the cluster. Raises as `tried`.
    """

    async def dry_run(client: ClusterClient) -> tuple[ObjectWarning, ...]:
        if await discovery.find(client, carried.api_version, carried.kind) is None:
            # The object may be created nevertheless; it waits until the cluster has the kind.
            words = kinds.kind_not_found(carried.api_version, carried.kind).message
            return (ObjectWarning("KIND_NOT_FOUND", "object.kind", words),)
        resource = await kinds.resource_on(client, discovery, carried)
        found = await client.find(resource, carried.kubernetes_namespace, carried.name)
        if carried.deletion_requested_at is not None:
            if found is not None and manifests.is_ours(carried, found):
                await dry_run_deletion(client, resource, found, "Background")
            return ()
        manifests.check_ours(carried, found)
        # The namespace may not exist on the cluster yet.
        with suppress(NotFound):
            await client.dry_run(resource, manifests.manifest(carried), force=True)
        return ()

    with warnings.noted() as collected:
        ours = await tried(connect, carried.namespace_ref, dry_run)
    return (*ours, *cluster_warnings(collected))
