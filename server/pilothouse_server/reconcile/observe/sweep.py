"""Finds and records our objects that the database lacks, and deletes leftovers.

A leftover results when a server is frozen between its lease and its apply. But after the database went back (a
restored dump, a promoted standby), workloads that were created since then look the same. So after a new history nothing
is deleted until an administrator has decided about the cluster's orphans (`ResolveOrphans`). The next sweep deletes the
objects that the administrator has chosen. While no such decision is pending, the sweep deletes other orphans by itself
under these conditions:

* the object's Kubernetes namespace carries the uid of a living namespace of *this* database: another installation may
  use the same cluster,
* the object carries that uid too: leftovers of a deregistered cluster are not deleted when its namespace is
  adopted again (their age does not decide this, because the cluster has its own clock),
* the object is not a claim: a claim holds data,
* an earlier sweep wrote the object to `orphans`, at least `grace_seconds` ago, and the row still exists right before
  the deletion. A database that went back in between does not have the row, or its history is not decided.

Objects that fail one of the first three conditions are listed as left. The deletion names the object's uid. The sweep
reads only the metadata of config maps and secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

import msgspec
import structlog

from pilothouse_server.containers import manifests
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError, Forbidden
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    NAMESPACES,
    SECRET_METADATA,
    SERVICE_ACCOUNTS,
    SERVICES,
    KubernetesObject,
    Resource,
)
from pilothouse_server.kubernetes.ownership import (
    CONFIG_UID,
    CONTAINER_UID,
    MANAGED_SELECTOR,
    NAMESPACE_UID,
    OBJECT_UID,
)
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.reconcile.observe.cluster_view import container_uid, labelled_uid
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.observe.object_observer import ObjectObserver
from pilothouse_server.reconcile.queue.cluster_clients import log_failure
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository import (
    container_status,
    namespace_status,
    object_status,
    orphan_status,
    service_status,
    volume_status,
)
from pilothouse_server.reconcile.repository.config_status import known_config_uids
from pilothouse_server.reconcile.repository.namespace_status import NamespaceKey
from pilothouse_server.reconcile.repository.orphan_status import Orphan, Recorded
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS, VOLUME_UID
from pilothouse_server.store.unit_of_work import ReadTransaction

log = structlog.get_logger(__name__)

_Candidate = tuple[Resource[Any], KubernetesObject]
# Returns those of the UUIDs that the database has.
_Known = Callable[[ReadTransaction, Sequence[str]], Awaitable[set[str]]]


class SweepSettings(msgspec.Struct, frozen=True):
    """`grace_seconds`: how long an object must have been known as an orphan before it is deleted."""

    period_seconds: float = 30.0
    grace_seconds: float = 30.0


class Sweep:
    """The sweep of one cluster, next to its observer. `run` works until cancelled."""

    def __init__(
        self,
        observer: ContainerObserver,
        objects: ObjectObserver,
        settings: SweepSettings = SweepSettings(),  # noqa: B008 - immutable
    ) -> None:
        self._observer = observer
        self._objects = objects
        self._cluster = observer.cluster
        self._settings = settings
        # uid of an orphan -> when this sweep first wrote it.
        self._since: dict[str, float] = {}
        self._waiting = 0

    async def run(self) -> None:
        """Sweeps periodically until cancelled. Raises LeaseLost."""
        await self._observer.synced.wait()
        while True:
            try:
                await self.sweep()
            except LeaseLost:
                raise
            except ClusterError as error:
                log_failure("sweep interrupted", self._cluster.name, error)
            except PilothouseError as error:
                log.info("sweep interrupted", cluster=self._cluster.name, reason=error.reason)
            await asyncio.sleep(self._settings.period_seconds)

    async def sweep(self) -> int:
        """Records orphans, and deletes those it may; returns the number of deletions.

        Raises LeaseLost, ClusterError, PilothouseError.
        """
        orphans = await self._orphans()
        async with self._cluster.transaction() as transaction:
            recorded = await orphan_status.record(transaction, self._cluster.name, list(orphans))
        now = monotonic()
        self._since = {
            uid: now if uid in recorded.new else self._since.get(uid, now) for uid in recorded.states
        }
        self._log_held(recorded)
        deleted = 0
        for orphan, resource in orphans.items():
            if self._is_due(orphan, recorded, now) and await self._delete(orphan, resource):
                deleted += 1
        return deleted

    def _is_due(self, orphan: Orphan, recorded: Recorded, now: float) -> bool:
        if recorded.states[orphan.uid] == "deleting":
            return True
        if recorded.states[orphan.uid] != "undecided" or recorded.is_held:
            return False
        since = self._since[orphan.uid]
        return since != now and now - since >= self._settings.grace_seconds

    async def _delete(self, orphan: Orphan, resource: Resource[Any]) -> bool:
        # An administrator may have decided otherwise since, or the database may have gone back.
        async with self._cluster.store.system_read() as transaction:
            if not await orphan_status.may_delete(transaction, self._cluster.name, orphan.uid):
                return False
        log.warning(
            "deleting an orphan",
            cluster=self._cluster.name,
            kind=orphan.kind,
            namespace=orphan.namespace,
            name=orphan.name,
        )
        return await self._cluster.client.delete(resource, orphan.namespace, orphan.name, uid=orphan.uid)

    def _log_held(self, recorded: Recorded) -> None:
        waiting = sum(state == "undecided" for state in recorded.states.values()) if recorded.is_held else 0
        if waiting != self._waiting and waiting:
            log.warning(
                "orphans are not deleted until an administrator decides: a new history began",
                cluster=self._cluster.name,
                orphans=waiting,
            )
        self._waiting = waiting

    async def _orphans(self) -> dict[Orphan, Resource[Any]]:
        """Returns our objects on the cluster that the database does not have."""
        client = self._cluster.client
        # These objects are few: they are listed, without an informer.
        services = (await client.list(SERVICES, label_selector=manifests.OWNED_SELECTOR)).items
        standing = (await client.list(SERVICES, label_selector=f"{SERVICE_UID},!{CONTAINER_UID}")).items
        claims = await self._claims()
        accounts = (await client.list(SERVICE_ACCOUNTS, label_selector=MANAGED_SELECTOR)).items
        configs: list[_Candidate] = []
        for resource in (CONFIG_MAP_METADATA, SECRET_METADATA):
            listed = await client.list(resource, label_selector=CONFIG_UID)
            configs += [(resource, item) for item in listed.items]
        workloads: list[_Candidate] = [
            (resource, item)
            for resource, items in self._observer.workloads()
            for item in items
            if container_uid(item) in self._observer.unknown
        ]
        workloads += [(SERVICES, item) for item in services]
        carried: list[_Candidate] = [
            (resource, item) for resource, items in self._objects.watched() for item in items
        ]
        async with self._cluster.store.system_read() as transaction:
            ours = await namespace_status.by_kubernetes_name(transaction, self._cluster.name)
            used = await container_status.service_accounts(transaction, self._cluster.name)
            unknown = await _unknown(transaction, container_status.known_uids, CONTAINER_UID, workloads)
            found = [
                *unknown,
                *await _unknown(
                    transaction,
                    service_status.SERVICES.known_uids,
                    SERVICE_UID,
                    [(SERVICES, each) for each in standing],
                ),
                *await _unknown(transaction, object_status.OBJECTS.known_uids, OBJECT_UID, carried),
                *await _unknown(transaction, known_config_uids, CONFIG_UID, configs),
                *await _unknown(transaction, volume_status.VOLUMES.known_uids, VOLUME_UID, claims),
                *(
                    (SERVICE_ACCOUNTS, each)
                    for each in accounts
                    if each.metadata.deletion_timestamp is None
                    and not each.metadata.label(OBJECT_UID)
                    and (each.metadata.namespace, each.metadata.name) not in used
                ),
            ]
            namespaces = await _unknown(
                transaction,
                namespace_status.known_namespace_uids,
                NAMESPACE_UID,
                [(NAMESPACES, each) for each in self._observer.namespaces.values()],
            )
        for uid in {container_uid(each) for _, each in workloads} - {
            container_uid(each) for _, each in unknown
        }:
            if uid in self._observer.unknown:
                # The container was imported since, and perhaps no change on the cluster will mark it.
                self._observer.mark(uid)
        orphans = {
            self._orphan(resource, item, ours): resource
            for resource, item in found
            if self._is_ours(item.metadata.namespace, ours)
        }
        return orphans | {_orphan(resource, item, is_swept=False): resource for resource, item in namespaces}

    async def _claims(self) -> list[_Candidate]:
        try:
            listed = await self._cluster.client.list(PERSISTENT_VOLUME_CLAIMS, label_selector=VOLUME_UID)
        except Forbidden:
            # The platform can do without this right. Nothing is lost: claims are never swept.
            return []
        return [(PERSISTENT_VOLUME_CLAIMS, each) for each in listed.items]

    def _orphan(
        self, resource: Resource[Any], item: KubernetesObject, ours: dict[str, NamespaceKey]
    ) -> Orphan:
        is_of_namespace = item.metadata.label(NAMESPACE_UID) == ours[item.metadata.namespace].uid
        return _orphan(resource, item, is_swept=is_of_namespace and resource is not PERSISTENT_VOLUME_CLAIMS)

    def _is_ours(self, kubernetes_name: str, ours: dict[str, NamespaceKey]) -> bool:
        there = self._observer.namespaces.get(("", kubernetes_name))
        namespace = ours.get(kubernetes_name)
        return (
            there is not None
            and namespace is not None
            and there.metadata.label(NAMESPACE_UID) == namespace.uid
        )


async def _unknown(
    transaction: ReadTransaction, known: _Known, label: str, candidates: list[_Candidate]
) -> list[_Candidate]:
    """Returns the objects whose label has a uid that is not in `known`.

    Objects in deletion are not orphans.
    """
    named = [
        (uid, each)
        for each in candidates
        if (uid := labelled_uid(each[1], label)) is not None and each[1].metadata.deletion_timestamp is None
    ]
    if not named:
        return []
    found = await known(transaction, sorted({uid for uid, _ in named}))
    return [each for uid, each in named if uid not in found]


def _orphan(resource: Resource[Any], item: KubernetesObject, *, is_swept: bool) -> Orphan:
    metadata = item.metadata
    return Orphan(metadata.uid, resource.kind, metadata.namespace, metadata.name, is_swept)
