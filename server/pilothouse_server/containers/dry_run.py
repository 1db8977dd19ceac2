"""Sends a container to its cluster as a dry run: the part of `validate_only` that only the cluster can check.

The server-side dry run of every object checks schema, admission, quota and immutable fields. The database transaction
is rolled back before, so that it holds no lock while the platform waits for the cluster.
"""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.containers import external_sources, guarding, manifests
from pilothouse_server.containers.extra_fields import check_by_schema
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.job_status import next_run
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import has_runs, workload_type
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.conditions import cluster_warnings
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import GUARDED, NAME_TAKEN, Conflict, Invalid, NotFound, Refused
from pilothouse_server.kubernetes.objects import (
    SERVICE_ACCOUNTS,
    SERVICES,
    Manifest,
    Resource,
    Service,
    WorkloadObject,
)
from pilothouse_server.kubernetes.openapi import CLUSTER_SCHEMAS
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.manifests import needs_another_address
from pilothouse_server.values.resources import ObjectWarning


async def check_on_cluster(connect: Connect, container: Container) -> tuple[ObjectWarning, ...]:
    """Sends the container, or its deletion, to its cluster as a dry run.

    Returns the warnings of the cluster. Raises as `tried` does.
    """

    async def trial(client: ClusterClient) -> None:
        if container.deletion_requested_at is None:
            await dry_run_container(client, container)
        else:
            await dry_run_container_deletion(client, container)

    with warnings.noted() as collected:
        await tried(connect, container.namespace_ref, trial)
    return cluster_warnings(collected)


async def dry_run_container(client: ClusterClient, container: Container) -> list[Manifest]:
    """Returns the complete workload and Services as they would be; empty if the Kubernetes namespace is missing."""
    where, objects = container.kubernetes_namespace, []
    workloads = workload_type(container).resource
    try:
        found = await client.find(workloads, where, container.kubernetes_name)
        _check_ours(container, workloads.kind, found)
        await _check_extra_fields(client, container)
        await _dry_run_service_account(client, container)
        if why := await external_sources.refuse_on_cluster(client, container):
            raise Refused(why, code=403, status_reason=GUARDED)
        if found is None or not _is_replaced(container):
            # A workload that will be replaced is left out: the cluster would refuse to change its immutable fields.
            objects.append(await _dry_run_workload(client, container, found))
        if found is not None and workload_type(container).scales:
            await _dry_run_scale(client, container, workloads, found)
        for manifest in manifests.services(container):
            service = await client.find(SERVICES, where, manifest["metadata"]["name"])
            _check_ours(container, "Service", service)
            if service is not None and needs_another_address(manifest, service):
                # The reconciler recreates this Service, but the cluster would report a change of an immutable field.
                continue
            objects.append(await client.dry_run(SERVICES, manifest, force=True))
    except NotFound:
        return []
    return objects


def _manifest(container: Container, found: WorkloadObject | None) -> Manifest:
    """Returns the manifest to try: for an existing Job, that of its next run, because a Job's template is immutable."""
    if not has_runs(container):
        return manifests.workload(container, replicas_set=container.wanted_replicas)
    return manifests.workload(container if found is None else next_run(container))


async def dry_run_container_deletion(client: ClusterClient, container: Container) -> None:
    """Sends the deletion of the container's Services and workload as a dry run."""
    workloads = workload_type(container).resource
    where = container.kubernetes_namespace
    selector = f"{CONTAINER_UID}={container.uid}"
    for service in (await client.list(SERVICES, where, label_selector=selector)).items:
        await dry_run_deletion(client, SERVICES, service)
    found = await client.find(workloads, where, container.kubernetes_name)
    if found is not None and manifests.is_ours(container, found):
        await dry_run_deletion(client, workloads, found)


def _is_replaced(container: Container) -> bool:
    return container.observed_generation < container.spec.replaced_generation


async def _dry_run_workload(
    client: ClusterClient, container: Container, found: WorkloadObject | None
) -> Manifest:
    workloads = workload_type(container).resource
    manifest = _manifest(container, found)
    try:
        return await client.dry_run(workloads, manifest, force=True)
    except Invalid:
        if found is None or not manifests.recreates(manifest):
            raise
    # The reconciler removes the settings of rolling updates, which an apply alone would keep.
    where = container.kubernetes_namespace, container.kubernetes_name
    return await client.dry_run_replaced(workloads, *where, ("spec",), manifest["spec"])


async def _check_extra_fields(client: ClusterClient, container: Container) -> None:
    """Raises InvalidArgument for extra fields that the cluster's own schemas refuse, by their paths."""
    if not container.spec.extra_fields:
        return
    known = await CLUSTER_SCHEMAS.read(client, workload_type(container).resource.api_version)
    if known is not None:
        found = Findings()
        check_by_schema(found, container, known, complete=True)
        found.raise_if_any()


async def _dry_run_service_account(client: ClusterClient, container: Container) -> None:
    manifest = manifests.service_account(container)
    if manifest is None:
        return
    name = container.spec.service_account
    found = await client.find(SERVICE_ACCOUNTS, container.kubernetes_namespace, name)
    if found is None:
        await client.dry_run(SERVICE_ACCOUNTS, manifest)
    else:
        guarding.refuse_account(container, found)


async def _dry_run_scale(
    client: ClusterClient, container: Container, workloads: Resource[WorkloadObject], found: WorkloadObject
) -> None:
    wanted = container.wanted_replicas
    # A number that others set stays until the container's own number changes.
    if found.metadata.annotation(manifests.REPLICAS_SET) != str(wanted) and found.replicas != wanted:
        where = (container.kubernetes_namespace, container.kubernetes_name)
        await client.set_scale(workloads, *where, wanted, dry_run=True)


def _check_ours(container: Container, kind: str, found: WorkloadObject | Service | None) -> None:
    if found is None or container.spec.taken_over is not None:
        return
    if not manifests.is_ours(container, found):
        raise Conflict(
            f"{kind} {found.metadata.namespace}/{found.metadata.name} exists and does not belong to this container",
            status_reason=NAME_TAKEN,
        )
