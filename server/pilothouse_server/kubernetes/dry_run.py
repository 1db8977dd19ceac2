"""Server-side dry runs: what a cluster would answer to what is wanted; nothing is changed.

Each function tries out what the reconciler would write for its noun: the same objects by apply, scale, patch or
deletion. Admission, quota, schema and immutable fields are checked as in earnest. Fields that others own count as taken
over, as the reconciler would. A namespace that is not on the cluster yet cannot be asked about: that is no refusal.

All raise Refused (Invalid, Forbidden, Conflict where a name is taken) with the cluster's words, Unreachable,
Throttled, Unauthorized.
"""

from __future__ import annotations

from typing import Any

from pilothouse_server.config.model import Config, Values
from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes import configs, manifests
from pilothouse_server.kubernetes.claims import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    claim,
    in_one_line,
    is_ours,
    lost,
    without_label,
)
from pilothouse_server.kubernetes.client import ClusterClient, Propagation
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict, Forbidden, Invalid, NotFound, Refused
from pilothouse_server.kubernetes.objects import (
    DEPLOYMENTS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Deployment,
    KubernetesObject,
    Manifest,
    Resource,
)
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.storage.model import Volume


async def dry_run_container(client: ClusterClient, container: Container) -> list[Manifest]:
    """Returns the container's Deployment and Services as they would be, whole; empty where its namespace is missing."""
    where, objects = container.kubernetes_namespace, []
    try:
        found = await client.find(DEPLOYMENTS, where, container.kubernetes_name)
        _check_ours(container, "Deployment", found)
        await _dry_run_service_account(client, container)
        manifest = manifests.deployment(container, replicas_set=container.wanted_replicas)
        objects.append(await client.dry_run(DEPLOYMENTS, manifest, force=True))
        if found is not None:
            await _dry_run_scale(client, container, found)
        for manifest in manifests.services(container):
            service = await client.find(SERVICES, where, manifest["metadata"]["name"])
            _check_ours(container, "Service", service)
            if service is not None and service.headless != (manifest["spec"].get("clusterIP") == "None"):
                # It would be made anew: the cluster would call it a change of what cannot be changed.
                continue
            objects.append(await client.dry_run(SERVICES, manifest, force=True))
    except NotFound:
        return []
    return objects


async def dry_run_container_deletion(client: ClusterClient, container: Container) -> None:
    """The deletion of its Services and its Deployment."""
    where = container.kubernetes_namespace
    selector = f"{manifests.CONTAINER_UID}={container.uid}"
    for service in (await client.list(SERVICES, where, label_selector=selector)).items:
        await _dry_run_deletion(client, SERVICES, service)
    found = await client.find(DEPLOYMENTS, where, container.kubernetes_name)
    if found is not None and found.metadata.label(manifests.CONTAINER_UID) == container.uid:
        await _dry_run_deletion(client, DEPLOYMENTS, found)


async def dry_run_config(client: ClusterClient, config: Config, values: Values) -> None:
    """The ConfigMap or Secret; `values` are the secret's, and in no word of a refusal."""
    resource = configs.resource_of(config)
    found = await client.find(resource, config.kubernetes_namespace, config.kubernetes_name)
    configs.check_ours(config, found)
    try:
        await client.dry_run(resource, configs.manifest(config, values), force=True)
    except NotFound:
        return
    except Refused as refusal:
        if found is None or not configs.is_made_anew(config, refusal):
            raise configs.redacted(refusal, values) from None


async def dry_run_config_deletion(client: ClusterClient, config: Config) -> None:
    """The deletion of the ConfigMap or Secret."""
    resource = configs.resource_of(config)
    found = await client.find(resource, config.kubernetes_namespace, config.kubernetes_name)
    if found is not None and configs.is_ours(config, found):
        await _dry_run_deletion(client, resource, found, "Background")


async def dry_run_claim(client: ClusterClient, volume: Volume) -> None:
    """The claim of a volume."""
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, volume.kubernetes_namespace, volume.kubernetes_name)
    if found is not None and not is_ours(volume, found):
        raise Conflict(
            f"PersistentVolumeClaim {volume.kubernetes_namespace}/{volume.kubernetes_name} exists and does not belong "
            "to this volume",
            status_reason=NAME_TAKEN,
        )
    if found is None and lost(volume) is not None:
        # It is not made again before somebody asks for that.
        return
    try:
        await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(volume), force=True)
    except NotFound:
        return
    except Invalid as refusal:
        raise in_one_line(refusal) from None


async def missing_class(client: ClusterClient, volume: Volume) -> list[str] | None:
    """Returns the storage classes there are, where a claim names none of them; None where it may be made.

    A class that volumes made by hand carry need not be there. Where we may not look nothing is missing.
    """
    if not volume.storage_class or volume.observed.claim_uid:
        return None
    try:
        classes = [each.metadata.name for each in (await client.list(STORAGE_CLASSES)).items]
        if volume.storage_class in classes:
            return None
        by_hand = (await client.list(PERSISTENT_VOLUMES)).items
    except (Forbidden, NotFound):
        return None
    if any(each.spec.storage_class_name == volume.storage_class for each in by_hand):
        return None
    return sorted(classes)


async def dry_run_claim_deletion(client: ClusterClient, volume: Volume) -> None:
    """The deletion of the claim of a volume; of one that was taken over, that it is given back."""
    where = (volume.kubernetes_namespace, volume.kubernetes_name)
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, *where)
    if found is None or not is_ours(volume, found):
        return
    if found.metadata.uid == volume.taken_over:
        await client.merge_patch(PERSISTENT_VOLUME_CLAIMS, *where, without_label(found), dry_run=True)
    else:
        await _dry_run_deletion(client, PERSISTENT_VOLUME_CLAIMS, found, "Background")


async def dry_run_namespace(client: ClusterClient, namespace: Namespace) -> Manifest:
    """Returns the Kubernetes namespace as it would be, whole."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    ours = found is None or found.metadata.label(manifests.NAMESPACE_UID) == namespace.uid
    if not ours and not namespace.adopted:
        raise Conflict(
            f"the Kubernetes namespace {namespace.kubernetes_name} exists and is not managed by Pilothouse",
            status_reason=NAME_TAKEN,
        )
    return await client.dry_run(NAMESPACES, manifests.namespace(namespace), force=namespace.adopted)


async def dry_run_namespace_deletion(client: ClusterClient, namespace: Namespace) -> None:
    """The deletion of the Kubernetes namespace; of one that was adopted, that it is released."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is None or found.metadata.label(manifests.NAMESPACE_UID) != namespace.uid:
        return
    if namespace.adopted:
        await client.dry_run(NAMESPACES, manifests.released_namespace(namespace))
    else:
        await _dry_run_deletion(client, NAMESPACES, found, "Background")


async def _dry_run_deletion(
    client: ClusterClient,
    resource: Resource[Any],
    found: KubernetesObject,
    propagation: Propagation = "Foreground",
) -> None:
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


async def _dry_run_service_account(client: ClusterClient, container: Container) -> None:
    manifest = manifests.service_account(container)
    if manifest is None:
        return
    name = container.spec.service_account
    if await client.find(SERVICE_ACCOUNTS, container.kubernetes_namespace, name) is None:
        await client.dry_run(SERVICE_ACCOUNTS, manifest)


async def _dry_run_scale(client: ClusterClient, container: Container, found: Deployment) -> None:
    wanted = container.wanted_replicas
    # A number that others set stays theirs as long as we want what we wanted.
    if found.metadata.annotation(manifests.REPLICAS_SET) != str(wanted) and found.spec.replicas != wanted:
        where = (container.kubernetes_namespace, container.kubernetes_name)
        await client.set_scale(DEPLOYMENTS, *where, wanted, dry_run=True)


def _check_ours(container: Container, kind: str, found: KubernetesObject | None) -> None:
    if found is None or container.spec.taken_over is not None:
        return
    if found.metadata.label(manifests.CONTAINER_UID) != container.uid:
        raise Conflict(
            f"{kind} {found.metadata.namespace}/{found.metadata.name} exists and does not belong to this container",
            status_reason=NAME_TAKEN,
        )
