"""Asks a namespace's cluster what it would say to it: the part of `validate_only` that only the cluster can answer."""

from __future__ import annotations

from contextlib import suppress

from pilothouse_server.clusters.refusals import Connect, refusal, tried, within
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import NAME_TAKEN, ClusterError, Conflict
from pilothouse_server.kubernetes.objects import NAMESPACES, Manifest
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_server.namespaces.manifests import (
    namespace_manifest,
    released_namespace_manifest,
    taken_words,
)
from pilothouse_server.namespaces.model import Namespace


async def check_on_cluster(connect: Connect, namespace: Namespace) -> None:
    """Have the namespace's cluster try it out, or its deletion if it is being deleted, and change nothing.

    `connect` makes a client of its own.

    Raises:
        InvalidArgument: the cluster finds it wrong; with its words and the fields it names.
        FailedPrecondition: the cluster refuses it, or the name is somebody else's there.
        Unavailable: the cluster does not answer.
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


async def check_home(connect: Connect, namespace: Namespace) -> None:
    """Ask whether something can be made in a namespace: not where its Kubernetes namespace is somebody's.

    Raises as `tried`.
    """
    await tried(connect, namespace.cluster_name, lambda client: refuse_taken_name(client, namespace))


async def dry_run_namespace(client: ClusterClient, namespace: Namespace) -> Manifest:
    """Returns the Kubernetes namespace as it would be, whole."""
    await refuse_taken_name(client, namespace)
    return await client.dry_run(NAMESPACES, namespace_manifest(namespace), force=namespace.adopted)


async def refuse_taken_name(client: ClusterClient, namespace: Namespace) -> None:
    """Raises Conflict `NameTaken` where the Kubernetes namespace is somebody's, and is not to be taken over."""
    if namespace.adopted:
        return
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is not None and found.metadata.label(NAMESPACE_UID) != namespace.uid:
        raise Conflict(taken_words(namespace), status_reason=NAME_TAKEN)


async def dry_run_namespace_deletion(client: ClusterClient, namespace: Namespace) -> None:
    """The deletion of the Kubernetes namespace; of one that was adopted, that it is released."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is None or found.metadata.label(NAMESPACE_UID) != namespace.uid:
        return
    if namespace.adopted:
        await client.dry_run(NAMESPACES, released_namespace_manifest(namespace))
    else:
        await dry_run_deletion(client, NAMESPACES, found, "Background")
