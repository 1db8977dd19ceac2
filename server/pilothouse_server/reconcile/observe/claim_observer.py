"""Watches the claims of one cluster and writes what they show of our volumes.

An informer keeps the claims that carry a volume's uid; each change marks its volume. In batches the marked volumes are
locked, loaded, observed (a pure function) and written, with their events, in one transaction under the observer's
lease. A pending claim does not say why; its events are asked for, and asked for again while it stays so.

What is not as it should be is left to the worker: a claim that vanished, one that is at last gone, a growth that was
refused while the claim was not bound. A claim of no volume is left alone, whoever it belonged to: it holds data, and
a database restored from a backup knows less than the cluster.

It runs beside the observer of containers and apart from it: a cluster that does not let us list claims still shows its
containers.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.claims import (
    PERSISTENT_VOLUME_CLAIMS,
    VOLUME_UID,
    ClaimObservation,
    PersistentVolumeClaim,
    observe_claim,
    refused,
)
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import EVENTS, Event
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.queue.leadership import under_lease
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository import volume_status as written_back
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.reconcile.repository.volume_status import Change
from pilothouse_server.storage.model import Volume
from pilothouse_server.store.unit_of_work import Store, Transaction

log = structlog.get_logger(__name__)


class ClaimObserverSettings(msgspec.Struct, frozen=True):
    """Times in seconds. `gather_seconds`: how long changes are gathered before they are written together."""

    batch: int = 100
    gather_seconds: float = 0.05
    locked_again_seconds: float = 0.2
    # A claim that stays pending: when its events are asked for, and how often again.
    unexplained_seconds: float = 0.5
    events_again_seconds: float = 15.0


class ClaimObserver:
    """The observation of one cluster's claims under one lease. `run` until cancelled; raises LeaseLost."""

    def __init__(
        self,
        store: Store,
        client: ClusterClient,
        cluster_name: str,
        lease: Lease,
        settings: ClaimObserverSettings = ClaimObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        self._store = store
        self._client = client
        self._cluster_name = cluster_name
        self._lease = lease
        self._settings = settings
        self._wake = asyncio.Event()
        self._informer = Informer(client, PERSISTENT_VOLUME_CLAIMS, VOLUME_UID, self._changed, self._failed)
        # By the volume's uid: its claims by name, and when it is to be looked at.
        self._claims: dict[str, dict[str, PersistentVolumeClaim]] = {}
        self._dirty: dict[str, float] = {}
        self._events: dict[str, tuple[Event, ...]] = {}
        self._events_asked: dict[str, float] = {}

    async def run(self) -> None:
        """Observe until cancelled. Raises LeaseLost when the database refuses our epoch."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._informer.run(), name=f"inform claims {self._cluster_name}")
                group.create_task(self._write_loop(), name=f"observe claims {self._cluster_name}")
        except BaseExceptionGroup as failed:
            if failed.subgroup(LeaseLost) is not None:
                raise LeaseLost from None
            raise

    def _failed(self, error: ClusterError) -> None:
        log.info(
            "watch of claims interrupted",
            cluster=self._cluster_name,
            reason=error.reason,
            message=error.message,
        )

    def _changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        for there in (old, new):
            uid = None if there is None else labelled_uid(there, VOLUME_UID)
            if there is None or uid is None:
                continue
            claims = self._claims.setdefault(uid, {})
            if there is new:
                claims[there.metadata.name] = there
            else:
                claims.pop(there.metadata.name, None)
                if not claims:
                    del self._claims[uid]
            self._mark(uid)

    def _mark(self, uid: str, in_seconds: float = 0.0) -> None:
        due = monotonic() + in_seconds
        self._dirty[uid] = min(due, self._dirty.get(uid, due))
        self._wake.set()

    def _take(self) -> list[str]:
        now = monotonic()
        due = sorted((when, uid) for uid, when in self._dirty.items() if when <= now)
        uids = [uid for _, uid in due[: self._settings.batch]]
        for uid in uids:
            del self._dirty[uid]
        return uids

    async def _write_loop(self) -> None:
        await self._informer.synced.wait()
        complete = False
        while True:
            try:
                if not complete:
                    # Also those of which the cluster shows nothing: it may have lost them.
                    async with self._store.system_read() as transaction:
                        for uid in await written_back.of_cluster(transaction, self._cluster_name):
                            self._mark(uid)
                    complete = True
                while uids := self._take():
                    await self._write_batch(uids)
            except PilothouseError as error:
                log.warning("claims cannot be written", cluster=self._cluster_name, reason=error.reason)
                await asyncio.sleep(1.0)
                # What was taken and not written must be looked at again.
                complete = False
            await self._pause()

    async def _pause(self) -> None:
        self._wake.clear()
        soonest = min(self._dirty.values(), default=None)
        if soonest is None or soonest > monotonic():
            try:
                async with asyncio.timeout(None if soonest is None else soonest - monotonic()):
                    await self._wake.wait()
            except TimeoutError:
                return
        await asyncio.sleep(self._settings.gather_seconds)

    async def _write_batch(self, uids: list[str]) -> None:
        seen: list[tuple[Volume, ClaimObservation]] = []
        async with under_lease(self._store, self._lease) as transaction:
            locked = await written_back.lock_free_uids(transaction, self._cluster_name, uids)
            for volume in locked:
                found = self._claim(volume)
                events = self._events.get(volume.uid, ())
                observation = observe_claim(volume, found, events, now=transaction.now)
                seen.append((volume, observation))
                await self._ask_for_repair(transaction, volume, observation, found)
            await written_back.write(
                transaction,
                [Change(volume, shown.observed, volume.observed_generation) for volume, shown in seen],
            )
            left = set(uids) - {volume.uid for volume in locked}
            known = (
                await written_back.uids_there(transaction, self._cluster_name, sorted(left))
                if left
                else set()
            )
        for uid in left:
            if uid in known:
                self._mark(uid, self._settings.locked_again_seconds)
            else:
                self._forget(uid)
        await self._explain(seen)

    def _claim(self, volume: Volume) -> PersistentVolumeClaim | None:
        return self._claims.get(volume.uid, {}).get(volume.kubernetes_name)

    async def _ask_for_repair(
        self,
        transaction: Transaction,
        volume: Volume,
        shown: ClaimObservation,
        found: PersistentVolumeClaim | None,
    ) -> None:
        """Have the worker look at what it alone can put right."""
        bound_now = shown.observed.status == "bound" and volume.observed.status != "bound"
        if bound_now and refused(volume) is not None:
            # A claim grows only once it is bound; what was refused before is worth an attempt at once.
            await transaction.enqueue("volume", volume.id, volume.cluster_name, volume.namespace_id)
        elif found is None and (volume.observed_generation > 0 or volume.deletion_requested_at is not None):
            await work_queue.requeue(transaction, "volume", volume.id)

    async def _explain(self, seen: list[tuple[Volume, ClaimObservation]]) -> None:
        """Ask for the events of claims that are pending; they are observed again with these."""
        for volume, observation in seen:
            uid = volume.uid
            if not observation.unexplained:
                self._events.pop(uid, None)
                self._events_asked.pop(uid, None)
                continue
            asked = self._events_asked.get(uid)
            if asked is None:
                # Most claims are bound within moments.
                self._events_asked[uid] = (
                    monotonic() - self._settings.events_again_seconds + self._settings.unexplained_seconds
                )
                self._mark(uid, self._settings.unexplained_seconds)
                continue
            wait = self._settings.events_again_seconds - (monotonic() - asked)
            if wait > 0:
                self._mark(uid, wait)
                continue
            self._events_asked[uid] = monotonic()
            try:
                listed = await self._client.list(
                    EVENTS,
                    volume.kubernetes_namespace,
                    field_selector="involvedObject.kind=PersistentVolumeClaim,"
                    f"involvedObject.name={volume.kubernetes_name}",
                )
            except ClusterError as error:
                # The rest would fail alike, and the observation must go on.
                self._failed(error)
                self._mark(uid, self._settings.events_again_seconds)
                return
            changed = listed.items != self._events.get(uid, ())
            self._events[uid] = listed.items
            self._mark(uid, 0.0 if changed else self._settings.events_again_seconds)

    def _forget(self, uid: str) -> None:
        self._events.pop(uid, None)
        self._events_asked.pop(uid, None)
