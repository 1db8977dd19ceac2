"""Watches the Services, config maps, secrets and quotas on a cluster.

The worker handles changes and deletions by others: it repairs or reports them by the drift policy of the container or
of the standalone Service. `service_observer` writes the observed state of Services; this observer passes each change to
it. This observer also sees our own applies; each costs one comparison that finds nothing. A resource is compared at
most every few seconds, so that two managers that disagree do not cause a busy loop.

Only the metadata of config maps and secrets is read. Each kind is watched separately: a cluster that denies one kind
still shows the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, cast

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    RESOURCE_QUOTAS,
    SECRET_METADATA,
    SERVICES,
    KubernetesObject,
    Resource,
    Service,
)
from pilothouse_server.kubernetes.ownership import CONFIG_UID, CONTAINER_UID, NAMESPACE_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.reconcile.observe.cluster_observer import ClusterObserver, LeasedCluster
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.observe.schedule import Schedule
from pilothouse_server.reconcile.repository import dependents, work_queue

log = structlog.get_logger(__name__)


class _WatchedKind(msgspec.Struct, frozen=True):
    """A kind.

    `label`: the label of all its objects. `owned_by`: labels that may name the owner; the first one counts. `owners`:
    the types of owners that must have such objects.
    """

    resource: Resource[Any]
    label: str
    owned_by: tuple[str, ...]
    owners: tuple[dependents.Owner, ...]

    def owner(self, item: KubernetesObject) -> str | None:
        """Returns the uid of the owner of an object."""
        return next(filter(None, (labelled_uid(item, label) for label in self.owned_by)), None)


_WATCHED = (
    _WatchedKind(SERVICES, SERVICE_UID, (CONTAINER_UID, SERVICE_UID), ("container", "service")),
    _WatchedKind(CONFIG_MAP_METADATA, CONFIG_UID, (CONFIG_UID,), ("config_map",)),
    _WatchedKind(SECRET_METADATA, CONFIG_UID, (CONFIG_UID,), ("secret",)),
    _WatchedKind(RESOURCE_QUOTAS, NAMESPACE_UID, (NAMESPACE_UID,), ("namespace",)),
)


_WITH_STATUS = (SERVICES, RESOURCE_QUOTAS)
_DATABASE_SECONDS = 1.0


def _is_status_alone(old: KubernetesObject | None, new: KubernetesObject | None) -> bool:
    return old is not None and new is not None and not fingerprints.changed(new.mark, old.mark)


def _nobody(_old: Service | None, _new: Service | None) -> None:
    """Does nothing: the default while nothing follows the Services."""


class DependentObserverSettings(msgspec.Struct, frozen=True):
    """`gather_seconds`: how long changes are gathered.

    `again_seconds`: the shortest time between two checks of one owner.
    """

    gather_seconds: float = 0.5
    again_seconds: float = 5.0


class DependentObserver(ClusterObserver):
    """The observer of one cluster's Services, config maps, secrets and quotas.

    `run` raises LeaseLost.
    """

    subject = "dependents"

    def __init__(
        self,
        cluster: LeasedCluster,
        settings: DependentObserverSettings = DependentObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster)
        self._settings = settings
        # uid of an owner -> when its next check is due; and when the last one was.
        self._schedule = Schedule(self._wake.set)
        self._looked: dict[str, float] = {}
        self._informers: dict[str, Informer[Any]] = {
            kind.resource.kind: self.informer(kind.resource, partial(self._changed, kind), kind.label)
            for kind in _WATCHED
        }
        # Called with the former and the new state of each Service that changes.
        self.on_service: Callable[[Service | None, Service | None], None] = _nobody

    @property
    def compared(self) -> dict[str, Informer[Any]]:
        """The objects to compare with the last apply, by kind."""
        return self._informers

    @property
    def services(self) -> Informer[Service]:
        """Our Services on the cluster."""
        return self._informers[SERVICES.kind]

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts a watch of each kind, a search for objects that vanished, and the loop that requests repairs."""
        for kind in _WATCHED:
            name = f"{kind.resource.kind} of {self.cluster.name}"
            group.create_task(self._informers[kind.resource.kind].run(), name=f"inform {name}")
            group.create_task(self._look_for_missing(kind), name=f"missing {name}")
        group.create_task(self._repair_loop(), name=self.task_name("repair"))

    def _changed(
        self, kind: _WatchedKind, old: KubernetesObject | None, new: KubernetesObject | None
    ) -> None:
        if kind.resource is SERVICES:
            self.on_service(cast("Service | None", old), cast("Service | None", new))
        if kind.resource in _WITH_STATUS and _is_status_alone(old, new):
            return
        if old is not None and (uid := kind.owner(old)) is not None:
            self._mark(uid)

    def _mark(self, uid: str) -> None:
        seconds = self._settings.gather_seconds
        if (looked := self._looked.get(uid)) is not None:
            seconds = max(seconds, looked + self._settings.again_seconds - monotonic())
        self._schedule.mark(uid, in_seconds=seconds)

    async def _look_for_missing(self, kind: _WatchedKind) -> None:
        """Marks owners that must have an object and had none when the watch began: it vanished before."""
        informer = self._informers[kind.resource.kind]
        await informer.synced.wait()
        while True:
            try:
                async with self.cluster.store.system_read() as transaction:
                    owners = await dependents.owners(transaction, self.cluster.name)
            except PilothouseError as error:
                log.info("owners cannot be read", cluster=self.cluster.name, reason=error.reason)
                await asyncio.sleep(_DATABASE_SECONDS)
                continue
            shown = {kind.owner(each) for each in informer.objects.values()}
            for uid, (owner, _) in owners.items():
                if owner in kind.owners and uid not in shown:
                    self._mark(uid)
            return

    async def _repair_loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._schedule.seconds_to_next()):
                    await self._wake.wait()
                continue
            except TimeoutError:
                pass
            uids = self._schedule.take()
            try:
                await self._ask_for_repairs(uids)
            except PilothouseError as error:
                log.warning("repairs cannot be requested", cluster=self.cluster.name, reason=error.reason)
                for uid in uids:
                    self._schedule.mark(uid, in_seconds=_DATABASE_SECONDS)

    async def _ask_for_repairs(self, uids: list[str]) -> None:
        async with self.cluster.store.system_read() as transaction:
            owners = await dependents.owners(transaction, self.cluster.name)
        found = [owners[uid] for uid in uids if uid in owners]
        await work_queue.requeue_by_type(self.cluster.transaction, found)
        now = monotonic()
        kept = now - self._settings.again_seconds
        self._looked = {uid: when for uid, when in self._looked.items() if when > kept}
        self._looked.update(dict.fromkeys(uids, now))
