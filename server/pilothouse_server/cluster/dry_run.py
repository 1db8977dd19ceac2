"""Asks a cluster what it would say to a container or a namespace, and changes nothing: server-side dry runs.

Admission, quota, schema and immutable fields are checked as for a real apply. Fields that others own count as taken
over, as the reconciler would. A namespace that is not on the cluster yet cannot be asked about: that is no refusal.
"""

from __future__ import annotations

from pilothouse_server.cluster import manifests
from pilothouse_server.cluster.client import ClusterClient
from pilothouse_server.cluster.errors import Conflict, NotFound
from pilothouse_server.cluster.objects import DEPLOYMENTS, NAMESPACES, SERVICES, KubernetesObject, Manifest
from pilothouse_server.containers.model import Container
from pilothouse_server.namespaces.model import Namespace


async def dry_run_container(client: ClusterClient, container: Container) -> list[Manifest]:
    """The container's Deployment and Services as they would be, whole; empty where its namespace is not there yet.

    Raises Refused (Invalid, Forbidden, Conflict where a name is taken) with the cluster's words, Unreachable,
    Throttled, Unauthorized.
    """
    where, shown = container.kubernetes_namespace, []
    try:
        found = await client.find(DEPLOYMENTS, where, container.kubernetes_name)
        _check_ours(container, "Deployment", found)
        shown.append(await client.dry_run(DEPLOYMENTS, manifests.deployment(container), force=True))
        for manifest in manifests.services(container):
            service = await client.find(SERVICES, where, manifest["metadata"]["name"])
            _check_ours(container, "Service", service)
            if service is not None and service.headless != (manifest["spec"].get("clusterIP") == "None"):
                # It would be made anew: the cluster would call it a change of what cannot be changed.
                continue
            shown.append(await client.dry_run(SERVICES, manifest, force=True))
    except NotFound:
        return []
    return shown


async def dry_run_namespace(client: ClusterClient, namespace: Namespace) -> Manifest:
    """The Kubernetes namespace as it would be, whole. Raises as `dry_run_container`."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    ours = found is None or found.metadata.label(manifests.NAMESPACE_UID) == namespace.uid
    if not ours and not namespace.adopted:
        raise Conflict(
            f"the Kubernetes namespace {namespace.kubernetes_name} exists and is not managed by Pilothouse",
            status_reason="NameTaken",
        )
    return await client.dry_run(NAMESPACES, manifests.namespace(namespace), force=namespace.adopted)


def _check_ours(container: Container, kind: str, found: KubernetesObject | None) -> None:
    if found is None or container.spec.taken_over is not None:
        return
    if found.metadata.label(manifests.CONTAINER_UID) != container.uid:
        raise Conflict(
            f"{kind} {found.metadata.namespace}/{found.metadata.name} exists and does not belong to this container",
            status_reason="NameTaken",
        )
