"""Watches what stands on a cluster beside Deployments and claims: Services, config maps, secrets.

Nothing of them is shown. What others change or take away is left to the worker, which puts it right, or reports it, as
the container's drift policy says. Our own applies are seen here, too; each costs one more look that finds nothing to
do, and one resource is looked at no more often than every few seconds, so that two who disagree do not run hot.

Of config maps and secrets the metadata alone travels. Each kind is watched apart: a cluster that denies one of them
still shows the others.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import Any

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import manifest_config, manifests
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    SECRET_METADATA,
    SERVICES,
    KubernetesObject,
    Resource,
)
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.queue.leadership import under_lease
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository import dependents as parts
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# What is watched, by which label its owner is found, and which owners must show some of it.
_WATCHED: tuple[tuple[Resource[Any], str, parts.Owner], ...] = (
    (SERVICES, manifests.CONTAINER_UID, "container"),
    (CONFIG_MAP_METADATA, manifest_config.CONFIG_UID, "config_map"),
    (SECRET_METADATA, manifest_config.CONFIG_UID, "secret"),
)


class PartObserverSettings(msgspec.Struct, frozen=True):
    """`gather_seconds`: how long changes are gathered; `again_seconds`: how soon one owner is looked at again."""

    gather_seconds: float = 0.5
    again_seconds: float = 5.0


class PartObserver:
    """The watch over one cluster's parts under one lease. `run` until cancelled; raises LeaseLost."""

    def __init__(
        self,
        store: Store,
        client: ClusterClient,
        cluster_name: str,
        lease: Lease,
        settings: PartObserverSettings = PartObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        self._store = store
        self._client = client
        self._cluster_name = cluster_name
        self._lease = lease
        self._settings = settings
        self._wake = asyncio.Event()
        # uid of an owner -> when it is to be looked at; and when it was.
        self._due: dict[str, float] = {}
        self._looked: dict[str, float] = {}

    async def run(self) -> None:
        """Watch until cancelled. Raises LeaseLost when the database refuses our epoch."""
        try:
            async with asyncio.TaskGroup() as group:
                for resource, label, owner in _WATCHED:
                    informer: Informer[Any] = Informer(
                        self._client, resource, label, partial(self._changed, label), self._failed
                    )
                    name = f"{resource.kind} of {self._cluster_name}"
                    group.create_task(informer.run(), name=f"inform {name}")
                    group.create_task(self._look_for_missing(informer, label, owner), name=f"missing {name}")
                group.create_task(self._look_loop(), name=f"look {self._cluster_name}")
        except BaseExceptionGroup as failed:
            if failed.subgroup(LeaseLost) is not None:
                raise LeaseLost from None
            raise

    def _failed(self, error: ClusterError) -> None:
        log.info(
            "watch of parts interrupted",
            cluster=self._cluster_name,
            reason=error.reason,
            message=error.message,
        )

    def _changed(self, label: str, old: KubernetesObject | None, _new: KubernetesObject | None) -> None:
        if old is not None and (uid := labelled_uid(old, label)) is not None:
            self._mark(uid)

    def _mark(self, uid: str) -> None:
        now = monotonic()
        looked = self._looked.get(uid)
        due = now + self._settings.gather_seconds
        if looked is not None:
            due = max(due, looked + self._settings.again_seconds)
        self._due.setdefault(uid, due)
        self._wake.set()

    async def _look_for_missing(
        self, informer: Informer[KubernetesObject], label: str, owner: parts.Owner
    ) -> None:
        """Owners that must show something and did not when the watch began: it went while nobody watched."""
        await informer.synced.wait()
        while True:
            try:
                async with self._store.system_read() as transaction:
                    owners = await parts.owners(transaction, self._cluster_name)
            except PilothouseError as error:
                log.info("owners of parts cannot be read", cluster=self._cluster_name, reason=error.reason)
                await asyncio.sleep(1.0)
                continue
            shown = {labelled_uid(each, label) for each in informer.objects.values()}
            for uid, (kind, _) in owners.items():
                if kind == owner and uid not in shown:
                    self._mark(uid)
            return

    async def _look_loop(self) -> None:
        while True:
            self._wake.clear()
            soonest = min(self._due.values(), default=None)
            try:
                async with asyncio.timeout(None if soonest is None else max(0.0, soonest - monotonic())):
                    await self._wake.wait()
                continue
            except TimeoutError:
                pass
            try:
                await self._look()
            except PilothouseError as error:
                log.warning("parts cannot be looked at", cluster=self._cluster_name, reason=error.reason)
                await asyncio.sleep(1.0)

    async def _look(self) -> None:
        now = monotonic()
        uids = [uid for uid, due in self._due.items() if due <= now]
        async with under_lease(self._store, self._lease) as transaction:
            owners = await parts.owners(transaction, self._cluster_name)
            for uid in sorted(uids):
                if (owner := owners.get(uid)) is not None:
                    await work_queue.requeue(transaction, *owner)
        for uid in uids:
            del self._due[uid]
        kept = now - self._settings.again_seconds
        self._looked = {uid: when for uid, when in self._looked.items() if when > kept}
        self._looked.update(dict.fromkeys(uids, now))
