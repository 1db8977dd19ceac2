"""Watches carried objects on one cluster, and writes their observed state.

Every few seconds the observer reads the kinds that the cluster must have objects of. Each kind in use has its own
watch, limited to objects with our label. At most 40 kinds are watched on a cluster, those with the most objects.
Objects of other kinds keep the state that the worker found, and are compared at each resync.

The worker handles changes of our fields by others, and objects that vanished. If a worker of this process has already
written the state of an object that it made, the observer does not write it again. Whether the backends of an Ingress or
a route are ready follows from the Services of its namespace; the observer of Services reports their changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import AnyObject, Resource
from pilothouse_server.kubernetes.ownership import OBJECT_UID
from pilothouse_server.objects import kinds
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.objects.observation import observe
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster, StatusObserver
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.observe.schedule import Schedule
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.repository import object_status, work_queue
from pilothouse_server.reconcile.repository.object_status import UsedKind
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import ReadTransaction

log = structlog.get_logger(__name__)

_DATABASE_SECONDS = 1.0


class ObjectObserverSettings(msgspec.Struct, frozen=True):
    """Times in seconds. `gather_seconds`: how long changes are gathered before they are written together.

    `new_seconds`: how long the observer leaves the state of a new object to the worker that applied it.
    `compare_seconds`: how long differences are gathered before the worker compares an object; `again_seconds`: the
    shortest time between two comparisons of one object.
    `kinds_seconds`: how often the used kinds are read. A kind that the cluster does not have is looked up at intervals
    that double each time, up to `absent_seconds`. `most_kinds`: the number of watches on a cluster.
    """

    batch: int = 100
    gather_seconds: float = 0.05
    new_seconds: float = 1.0
    compare_seconds: float = 0.5
    kinds_seconds: float = 3.0
    absent_seconds: float = 30.0
    again_seconds: float = 5.0
    locked_again_seconds: float = 0.2
    most_kinds: int = 40


class _WatchedKind(msgspec.Struct):
    """The watch of a kind."""

    resource: Resource[AnyObject]
    informer: Informer[AnyObject]
    task: asyncio.Task[None]


class ObjectObserver(StatusObserver):
    """The observer of one cluster's carried objects under one lease.

    `run` works until cancelled; raises LeaseLost.
    """

    subject = "objects"

    def __init__(
        self,
        cluster: LeasedCluster,
        applied_generations: AppliedGenerations,
        settings: ObjectObserverSettings = ObjectObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster, gather_seconds=settings.gather_seconds)
        self._applied_generations = applied_generations
        self._settings = settings
        self._discovery = KindDiscovery()
        self._watched: dict[UsedKind, _WatchedKind] = {}
        # Used kinds that the cluster does not have: when each is looked up again, and the pause before that.
        self._absent: dict[UsedKind, tuple[float, float]] = {}
        self._schedule = Schedule(self._wake.set)
        # New objects; and the uid and version on the cluster with which each was first seen.
        self._new = Schedule(self._wake.set)
        self._first: dict[str, tuple[str, str]] = {}
        # Objects that the worker must compare; and when each was last requested.
        self._repairs = Schedule(self._wake.set)
        self._asked: dict[str, float] = {}

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the loop that follows the used kinds, and the loop that writes."""
        group.create_task(self._follow_kinds(group), name=self.task_name("kinds"))
        group.create_task(self._write_loop(), name=self.task_name("observe"))

    def informers(self) -> Sequence[Informer[Any]]:
        """Returns none: kinds change over time, and no write waits for all of them."""
        return ()

    def watched(self) -> list[tuple[Resource[AnyObject], list[AnyObject]]]:
        """Returns the watched objects that carry our label, by kind."""
        return [(each.resource, list(each.informer.objects.values())) for each in self._watched.values()]

    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        """Returns the uids of all objects on the cluster."""
        return await object_status.OBJECTS.of_cluster(transaction, self.cluster.name)

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of an object."""
        self._schedule.mark(uid, in_seconds=in_seconds)

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next check; None if none is scheduled."""
        due = (each.seconds_to_next() for each in (self._schedule, self._new, self._repairs))
        return min((each for each in due if each is not None), default=None)

    async def services_changed(self, namespace_ids: set[int]) -> None:
        """Schedules checks of these namespaces' objects that route to Services.

        Raises PilothouseError.
        """
        async with self.cluster.store.system_read() as transaction:
            for uid in await object_status.leading(transaction, namespace_ids):
                self.mark(uid)

    async def write_due(self) -> None:
        """Writes the objects that are due, and requests repairs. Raises LeaseLost, PilothouseError."""
        while uids := self._schedule.take(self._settings.batch):
            await self.write(uids)
        while uids := self._new.take(self._settings.batch):
            if unwritten := [uid for uid in uids if not self._is_written(uid)]:
                await self.write(unwritten)
        while uids := self._repairs.take(self._settings.batch):
            await self._ask_for_repairs(uids)

    async def write_batch(self, uids: list[str]) -> None:
        """Locks the free rows, and writes differences. Raises LeaseLost, PilothouseError."""
        async with self.cluster.transaction() as transaction:
            locked = await object_status.OBJECTS.lock_free_uids(transaction, self.cluster.name, uids)
            endpoints = await object_status.endpoints(transaction, locked)
            changes, gone = [], []
            for carried in locked:
                known, found = self._found(carried)
                if not known:
                    # The state that the worker has written stays.
                    continue
                shown = observe(carried, found, endpoints.get(carried.namespace_id, {}))
                changes.append(ObservedChange(carried, shown, carried.observed_generation))
                if found is None and carried.deletion_requested_at is not None:
                    gone.append(("object", carried.id))
            await work_queue.requeue(transaction, gone)
            await object_status.OBJECTS.write(transaction, changes)
            left = sorted(set(uids) - {carried.uid for carried in locked})
            there = await object_status.OBJECTS.there(transaction, self.cluster.name, left) if left else ()
        for uid in uids:
            if uid not in there:
                self._first.pop(uid, None)
        for uid in there:
            if uid in self._first:
                self._new.mark(uid, in_seconds=self._settings.new_seconds)
            else:
                self.mark(uid, in_seconds=self._settings.locked_again_seconds)

    def _is_written(self, uid: str) -> bool:
        """Returns whether a worker of this process has written the state in which an object was first seen."""
        first = self._first.get(uid)
        if first is None or not self._applied_generations.take(*first):
            return False
        del self._first[uid]
        return True

    async def _ask_for_repairs(self, uids: list[str]) -> None:
        """Has the worker compare objects. Raises LeaseLost, PilothouseError."""
        try:
            async with self.cluster.transaction() as transaction:
                found = await object_status.OBJECTS.there(transaction, self.cluster.name, uids)
                await work_queue.requeue(transaction, [("object", object_id) for object_id in found.values()])
        except PilothouseError:
            for uid in uids:
                self._repairs.mark(uid, in_seconds=_DATABASE_SECONDS)
            raise
        now = monotonic()
        kept = now - self._settings.again_seconds
        self._asked = {uid: when for uid, when in self._asked.items() if when > kept}
        self._asked.update(dict.fromkeys(uids, now))

    def _found(self, carried: CarriedObject) -> tuple[bool, AnyObject | None]:
        """Returns whether the objects of the row's kind are known, and the row's object if it exists."""
        watched = next(
            (
                each
                for used, each in self._watched.items()
                if (used.group, used.kind) == (carried.api_group, carried.kind)
            ),
            None,
        )
        if watched is None or not watched.informer.synced.is_set():
            return False, None
        found = watched.informer.objects.get((carried.kubernetes_namespace, carried.name))
        if found is not None and found.metadata.label(OBJECT_UID) != carried.uid:
            found = None
        return True, found

    async def _follow_kinds(self, group: asyncio.TaskGroup) -> None:
        while True:
            try:
                async with self.cluster.store.system_read() as transaction:
                    used = await object_status.in_use(
                        transaction, self.cluster.name, self._settings.most_kinds
                    )
                await self._watch(group, used)
            except PilothouseError as error:
                log.info("used kinds cannot be read", cluster=self.cluster.name, reason=error.reason)
            except ClusterError as error:
                self.watch_failed(error)
            await asyncio.sleep(self._settings.kinds_seconds)

    async def _watch(self, group: asyncio.TaskGroup, used: Sequence[UsedKind]) -> None:
        """Starts the watches of kinds that are used now, and ends the other watches. Raises ClusterError."""
        for kind in [kind for kind in self._watched if kind not in used]:
            await cancel_and_wait(self._watched.pop(kind).task)
        self._absent = {kind: asked for kind, asked in self._absent.items() if kind in used}
        for kind in used:
            asked_at, pause = self._absent.get(kind, (0.0, self._settings.kinds_seconds / 2))
            if kind in self._watched or monotonic() < asked_at:
                continue
            known = await self._discovery.find(self.cluster.client, kind.api_version, kind.kind)
            if known is None or not known.namespaced:
                # The kind may be installed later.
                pause = min(2 * pause, self._settings.absent_seconds)
                self._absent[kind] = monotonic() + pause, pause
                continue
            self._absent.pop(kind, None)
            resource = kinds.resource_of(kind.api_version, kind.kind, known.plural)
            informer = self.informer(resource, self._changed, OBJECT_UID)
            informer.on_listed = partial(self._look_again, group, kind)
            name = f"inform {kind.kind} of {self.cluster.name}"
            self._watched[kind] = _WatchedKind(
                resource, informer, group.create_task(informer.run(), name=name)
            )

    def _look_again(self, group: asyncio.TaskGroup, kind: UsedKind) -> None:
        # A list may show changes that no watch reported, also of a state that a worker has written.
        for each in self._watched[kind].informer.objects.values():
            self._first.pop(labelled_uid(each, OBJECT_UID) or "", None)
        group.create_task(self._compare(kind), name=f"compare {kind.kind} of {self.cluster.name}")

    async def _compare(self, kind: UsedKind) -> None:
        """Has the worker compare applied objects of a kind that the list lacks or shows changed.

        Objects that waited for the kind to be installed are included.
        """
        watched = self._watched.get(kind)
        if watched is None:
            return
        shown = {labelled_uid(each, OBJECT_UID): each.mark for each in watched.informer.objects.values()}
        try:
            async with self.cluster.store.system_read() as transaction:
                wanted = await object_status.applied(transaction, self.cluster.name, kind.group, kind.kind)
        except PilothouseError as error:
            # The next list starts this comparison again.
            log.info("objects cannot be read", cluster=self.cluster.name, reason=error.reason)
            return
        for uid, noted in wanted.items():
            if uid not in shown or not fingerprints.same(shown[uid], noted):
                self._ask(uid)

    def _changed(self, old: AnyObject | None, new: AnyObject | None) -> None:
        if old is None and new is not None and (uid := labelled_uid(new, OBJECT_UID)) is not None:
            self._first[uid] = new.metadata.uid, new.metadata.resource_version
            self._new.mark(uid, in_seconds=self._settings.new_seconds)
            return
        for uid in {labelled_uid(each, OBJECT_UID) for each in (old, new) if each is not None}:
            if uid is not None:
                self.mark(uid)
        if old is None or (new is not None and not fingerprints.changed(new.mark, old.mark)):
            return
        if (uid := labelled_uid(old, OBJECT_UID)) is not None:
            self._ask(uid)

    def _ask(self, uid: str) -> None:
        """Requests a comparison by the worker, at most every few seconds.

        So two managers that disagree do not cause a busy loop.
        """
        seconds = self._settings.compare_seconds
        if (asked := self._asked.get(uid)) is not None:
            seconds = max(seconds, asked + self._settings.again_seconds - monotonic())
        self._repairs.mark(uid, in_seconds=seconds)
