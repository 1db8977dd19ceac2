"""Deletes objects of ours on a cluster that belong to no container, config map or secret any more.

They come about where a server was frozen between its lease and its apply, or where the database was restored from a
backup. Four things must hold before anything is deleted:

* the Kubernetes namespace that the object is in carries the uid of a living namespace of *this* database: another
  installation may use the same cluster,
* the object carries that uid too: what a deregistered cluster was left with is not deleted when its namespace is taken
  over again (its age does not decide this, for the cluster has a clock of its own),
* what it belongs to has not been in the database for a while,
* and is not there at the moment of deletion.

The deletion names the object's uid. Of config maps and secrets the sweep sees the metadata alone.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import msgspec
import structlog

from pilothouse_server.containers import manifests
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    DEPLOYMENTS,
    SECRET_METADATA,
    SERVICE_ACCOUNTS,
    SERVICES,
    KubernetesObject,
    Resource,
)
from pilothouse_server.kubernetes.ownership import CONFIG_UID, MANAGED_SELECTOR, NAMESPACE_UID
from pilothouse_server.reconcile.observe.cluster_view import container_uid, labelled_uid
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.repository import container_status, namespace_status
from pilothouse_server.reconcile.repository.config_status import known_config_uids
from pilothouse_server.reconcile.repository.namespace_status import NamespaceKey

log = structlog.get_logger(__name__)


class SweepSettings(msgspec.Struct, frozen=True):
    """`grace_seconds`: how long an object must have been nobody's, and how old it must be."""

    period_seconds: float = 30.0
    grace_seconds: float = 30.0


class Sweep:
    """The sweep of one cluster, beside its observer. `run` until cancelled."""

    def __init__(
        self,
        observer: ContainerObserver,
        settings: SweepSettings = SweepSettings(),  # noqa: B008 - immutable
    ) -> None:
        self._observer = observer
        self._cluster = observer.cluster
        self._settings = settings

    async def run(self) -> None:
        """Sweeps now and then until cancelled."""
        await self._observer.synced.wait()
        while True:
            try:
                await self.sweep()
            except (ClusterError, PilothouseError) as error:
                log.info("sweep interrupted", cluster=self._cluster.name, message=str(error))
            await asyncio.sleep(self._settings.period_seconds)

    async def sweep(self) -> int:
        """Deletes what is nobody's; returns how many objects. Raises ClusterError, PilothouseError."""
        old = monotonic() - self._settings.grace_seconds
        unknown = {uid for uid, since in self._observer.unknown.items() if since <= old}
        deployments = [
            deployment
            for deployment in self._observer.deployments.values()
            if container_uid(deployment) in unknown
        ]
        # Services are few and not watched: they are listed.
        listed = await self._cluster.client.list(SERVICES, label_selector=manifests.OWNED_SELECTOR)
        services = [service for service in listed.items if self._is_old(service)]
        candidates: list[tuple[Resource[Any], KubernetesObject]] = [
            *((DEPLOYMENTS, deployment) for deployment in deployments),
            *((SERVICES, service) for service in services),
        ]
        orphans = await self._orphans(candidates) + await self._config_orphans()
        orphans += await self._unused_accounts()
        for resource, orphan in orphans:
            metadata = orphan.metadata
            log.warning(
                "deleting an orphan",
                cluster=self._cluster.name,
                kind=resource.kind,
                namespace=metadata.namespace,
                name=metadata.name,
            )
            await self._cluster.client.delete(resource, metadata.namespace, metadata.name, uid=metadata.uid)
        return len(orphans)

    async def _orphans(
        self, candidates: list[tuple[Resource[Any], KubernetesObject]]
    ) -> list[tuple[Resource[Any], KubernetesObject]]:
        uids = {uid for _, candidate in candidates if (uid := container_uid(candidate)) is not None}
        if not uids:
            return []
        async with self._cluster.store.system_read() as transaction:
            known = await container_status.known_uids(transaction, sorted(uids))
            ours = await namespace_status.by_kubernetes_name(transaction, self._cluster.name)
        return [
            (resource, candidate)
            for resource, candidate in candidates
            if (uid := container_uid(candidate)) is not None
            and uid not in known
            and candidate.metadata.deletion_timestamp is None
            and self._is_in_namespace(candidate, ours)
        ]

    async def _config_orphans(self) -> list[tuple[Resource[Any], KubernetesObject]]:
        candidates: dict[str, list[tuple[Resource[Any], KubernetesObject]]] = {}
        for resource in (CONFIG_MAP_METADATA, SECRET_METADATA):
            listed = await self._cluster.client.list(resource, label_selector=CONFIG_UID)
            for item in listed.items:
                uid = labelled_uid(item, CONFIG_UID)
                if uid is not None and self._is_old(item) and item.metadata.deletion_timestamp is None:
                    candidates.setdefault(uid, []).append((resource, item))
        if not candidates:
            return []
        async with self._cluster.store.system_read() as transaction:
            known = await known_config_uids(transaction, sorted(candidates))
            ours = await namespace_status.by_kubernetes_name(transaction, self._cluster.name)
        return [
            each
            for uid, found in candidates.items()
            if uid not in known
            for each in found
            if self._is_in_namespace(each[1], ours)
        ]

    async def _unused_accounts(self) -> list[tuple[Resource[Any], KubernetesObject]]:
        """Service accounts that we made and no container names any more."""
        listed = await self._cluster.client.list(SERVICE_ACCOUNTS, label_selector=MANAGED_SELECTOR)
        candidates = [
            account
            for account in listed.items
            if self._is_old(account) and account.metadata.deletion_timestamp is None
        ]
        if not candidates:
            return []
        async with self._cluster.store.system_read() as transaction:
            used = await container_status.service_accounts(transaction, self._cluster.name)
            ours = await namespace_status.by_kubernetes_name(transaction, self._cluster.name)
        return [
            (SERVICE_ACCOUNTS, account)
            for account in candidates
            if (account.metadata.namespace, account.metadata.name) not in used
            and self._is_in_namespace(account, ours)
        ]

    def _is_in_namespace(self, candidate: KubernetesObject, ours: dict[str, NamespaceKey]) -> bool:
        kubernetes_name = candidate.metadata.namespace
        there = self._observer.namespaces.get(("", kubernetes_name))
        namespace = ours.get(kubernetes_name)
        return (
            there is not None
            and namespace is not None
            and there.metadata.label(NAMESPACE_UID) == namespace.uid
            and candidate.metadata.label(NAMESPACE_UID) == namespace.uid
        )

    def _is_old(self, candidate: KubernetesObject) -> bool:
        created = candidate.metadata.creation_timestamp
        if created is None:
            return False
        return (self._cluster.client.now() - created).total_seconds() >= self._settings.grace_seconds
