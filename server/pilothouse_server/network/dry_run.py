"""Tries a Service on the cluster by a dry run: the part of `validate_only` that needs the cluster."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.conditions import cluster_warnings
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import SERVICES
from pilothouse_server.network import manifests
from pilothouse_server.network.model import Service
from pilothouse_server.values.resources import ObjectWarning


async def check_on_cluster(connect: Connect, service: Service) -> tuple[ObjectWarning, ...]:
    """Tries a Service, or its deletion if it is being deleted, on the cluster; changes nothing.

    Returns the warnings of the cluster. Raises as `tried`.
    """
    dry_run = _dry_run if service.deletion_requested_at is None else _dry_run_of_deletion
    with warnings.noted() as collected:
        await tried(connect, service.namespace_ref, lambda client: dry_run(client, service))
    return cluster_warnings(collected)


async def _dry_run(client: ClusterClient, service: Service) -> None:
    found = await client.find(SERVICES, service.kubernetes_namespace, service.name)
    manifests.check_ours(service, found)
    wanted = manifests.manifest(service)
    if found is not None and manifests.needs_another_address(wanted, found):
        # The reconciler will recreate it, but a dry run would compare it with the existing object.
        return
    try:
        await client.dry_run(SERVICES, wanted, force=True)
    except NotFound:
        return


async def _dry_run_of_deletion(client: ClusterClient, service: Service) -> None:
    found = await client.find(SERVICES, service.kubernetes_namespace, service.name)
    if found is not None and manifests.is_ours(service, found):
        await dry_run_deletion(client, SERVICES, found, "Background")
