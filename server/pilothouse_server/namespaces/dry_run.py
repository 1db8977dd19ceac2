"""Tries a namespace on its cluster by a dry run: the part of `validate_only` that needs the cluster."""

from __future__ import annotations

from contextlib import suppress

from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.kubernetes.objects import NAMESPACES, Manifest
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_server.namespaces.manifests import (
    namespace_manifest,
    released_namespace_manifest,
)
from pilothouse_server.namespaces.model import Namespace


async def check_on_cluster(connect: Connect, namespace: Namespace) -> None:
    """Tries a namespace, or its deletion if it is being deleted, on its cluster; changes nothing.

    `connect` must return a new client, which is closed here.

    Raises:
        InvalidArgument: the cluster finds it invalid; has the cluster's message and the fields that it names.
        FailedPrecondition: the cluster refuses it, or the Kubernetes namespace belongs to somebody else.
        Unavailable: the cluster does not respond.
    """
    name = namespace.cluster_name
    try:
        client = await connect(name)
        try:
            if namespace.deletion_requested_at is None:
                await within(dry_run_namespace(client, namespace), name)
            else:
                await within(dry_run_namespace_deletion(client, namespace), name)
        finally:
            with suppress(Exception):
                await client.close()
    except ClusterError as error:
        raise refusal(error, name) from error


async def dry_run_namespace(client: ClusterClient, namespace: Namespace) -> Manifest:
    """Returns the whole Kubernetes namespace as it would be after an apply."""
    if not namespace.adopted or namespace.observed_generation:
        await refuse_foreign(client, namespace.ref)
    return await client.dry_run(NAMESPACES, namespace_manifest(namespace), force=namespace.adopted)


async def dry_run_namespace_deletion(client: ClusterClient, namespace: Namespace) -> None:
    """Tries the deletion of the Kubernetes namespace; for an adopted one, its release."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is None or found.metadata.label(NAMESPACE_UID) != namespace.uid:
        return
    if namespace.adopted:
        await client.dry_run(NAMESPACES, released_namespace_manifest(namespace))
    else:
        await dry_run_deletion(client, NAMESPACES, found, "Background")
