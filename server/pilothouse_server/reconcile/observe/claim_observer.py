"""Watches the claims of one cluster and writes their observed state to our volumes.

An informer watches the claims that carry a volume's uid; each change marks its volume. In batches the marked volumes
are locked, loaded, observed (a pure function) and written, with their events, in one transaction under the observer's
lease. The status of a pending claim gives no reason, so its events are requested, repeatedly while it stays pending.

The worker handles differences: a claim that vanished or that others changed, a deletion that has finished, a
growth that was refused while the claim was not bound. A claim without a volume is left alone, even if it once
belonged to us: it holds data, and a database restored from a backup may lack the volume.

It runs separately from the observer of containers: a cluster that does not let us list claims still shows its
containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

import msgspec

from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import EVENTS, EventObject
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster, StatusObserver
from pilothouse_server.reconcile.observe.cluster_view import SUSPECT_SECONDS, labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.observe.schedule import Schedule
from pilothouse_server.reconcile.repository import volume_status, work_queue
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.storage.claims import (
    PERSISTENT_VOLUME_CLAIMS,
    VOLUME_UID,
    ClaimObservation,
    PersistentVolumeClaim,
    observe_claim,
    refused,
)
from pilothouse_server.storage.model import Volume
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class ClaimObserverSettings(msgspec.Struct, frozen=True):
    """Times in seconds. `gather_seconds`: how long changes are gathered before they are written together."""

    batch: int = 100
    gather_seconds: float = 0.05
    locked_again_seconds: float = 0.2
    # A claim that stays pending: when its events are requested, and how often again.
    unexplained_seconds: float = 0.5
    events_again_seconds: float = 15.0


class ClaimObserver(StatusObserver):
    """The observer of one cluster's claims under one lease.

    `run` works until cancelled; raises LeaseLost.
    """

    subject = "claims"

    def __init__(
        self,
        cluster: LeasedCluster,
        settings: ClaimObserverSettings = ClaimObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster, gather_seconds=settings.gather_seconds)
        self._settings = settings
        self._informer = self.informer(PERSISTENT_VOLUME_CLAIMS, self._changed, VOLUME_UID)
        # By the volume's uid: its claims by name, and when to check it.
        self._claims: dict[str, dict[str, PersistentVolumeClaim]] = {}
        self._schedule = Schedule(self._wake.set)
        # When to check whether others changed the claim of a volume.
        self._suspects = Schedule(self._wake.set)
        self._events: dict[str, tuple[EventObject, ...]] = {}
        self._requested_at: dict[str, float] = {}

    def informers(self) -> Sequence[Informer[Any]]:
        """Returns the informer of claims."""
        return (self._informer,)

    @property
    def compared(self) -> dict[str, Informer[Any]]:
        """The objects to compare with the last apply, by kind."""
        return {PERSISTENT_VOLUME_CLAIMS.kind: self._informer}

    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        """Returns the uids of all volumes on the cluster that are claims."""
        return await volume_status.VOLUMES.of_cluster(transaction, self.cluster.name)

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a volume."""
        self._schedule.mark(uid, in_seconds=in_seconds)

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next volume is due; None if there is none."""
        times = (self._schedule.seconds_to_next(), self._suspects.seconds_to_next())
        return min((seconds for seconds in times if seconds is not None), default=None)

    async def write_due(self) -> None:
        """Writes the volumes that are due. Raises LeaseLost, PilothouseError."""
        while uids := self._schedule.take(self._settings.batch):
            await self.write(uids)
        if suspects := self._suspects.take():
            async with self.cluster.transaction() as transaction:
                ids = await volume_status.VOLUMES.of_cluster(transaction, self.cluster.name)
                await work_queue.requeue(
                    transaction, [("volume", ids[uid]) for uid in suspects if uid in ids]
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
            self.mark(uid)
            if there is new and old is not None and fingerprints.changed(new.mark, old.mark):
                # This includes our own changes: the worker reads the claim and finds nothing to do.
                self._suspects.postpone(uid, in_seconds=SUSPECT_SECONDS)

    async def write_batch(self, uids: list[str]) -> None:
        """Locks the free rows, and writes differences. Raises LeaseLost, PilothouseError."""
        seen: list[tuple[Volume, ClaimObservation]] = []
        async with self.cluster.transaction() as transaction:
            locked = await volume_status.VOLUMES.lock_free_uids(transaction, self.cluster.name, uids)
            for volume in locked:
                found = self._claim(volume)
                events = self._events.get(volume.uid, ())
                observation = observe_claim(volume, found, events, now=transaction.now)
                seen.append((volume, observation))
                await self._ask_for_repair(transaction, volume, observation, found)
            await volume_status.VOLUMES.write(
                transaction,
                [
                    ObservedChange(volume, shown.observed, volume.observed_generation)
                    for volume, shown in seen
                ],
            )
            left = set(uids) - {volume.uid for volume in locked}
            known = (
                await volume_status.VOLUMES.there(transaction, self.cluster.name, sorted(left))
                if left
                else {}
            )
        for uid in left:
            if uid in known:
                self.mark(uid, in_seconds=self._settings.locked_again_seconds)
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
        """Makes work due for claims that only the worker can repair."""
        bound_now = shown.observed.status == "bound" and volume.observed.status != "bound"
        if bound_now and refused(volume) is not None:
            # A claim grows only once it is bound, so a refused growth is tried again immediately.
            await transaction.enqueue("volume", volume.id, volume.cluster_name, volume.namespace_id)
        elif found is None and (volume.observed_generation > 0 or volume.deletion_requested_at is not None):
            await work_queue.requeue(transaction, [("volume", volume.id)])

    async def _explain(self, seen: list[tuple[Volume, ClaimObservation]]) -> None:
        """Requests the events of pending claims, which are then observed again with these events."""
        for volume, observation in seen:
            uid = volume.uid
            if not observation.unexplained:
                self._events.pop(uid, None)
                self._requested_at.pop(uid, None)
                continue
            requested_at = self._requested_at.get(uid)
            if requested_at is None:
                # Most claims are bound within moments.
                self._requested_at[uid] = (
                    monotonic() - self._settings.events_again_seconds + self._settings.unexplained_seconds
                )
                self.mark(uid, in_seconds=self._settings.unexplained_seconds)
                continue
            wait = self._settings.events_again_seconds - (monotonic() - requested_at)
            if wait > 0:
                self.mark(uid, in_seconds=wait)
                continue
            self._requested_at[uid] = monotonic()
            try:
                listed = await self.cluster.client.list(
                    EVENTS,
                    volume.kubernetes_namespace,
                    field_selector="involvedObject.kind=PersistentVolumeClaim,"
                    f"involvedObject.name={volume.kubernetes_name}",
                )
            except ClusterError as error:
                # The other requests would fail too, and the observation must continue.
                self.watch_failed(error)
                self.mark(uid, in_seconds=self._settings.events_again_seconds)
                return
            changed = listed.items != self._events.get(uid, ())
            self._events[uid] = listed.items
            self.mark(uid, in_seconds=0.0 if changed else self._settings.events_again_seconds)

    def _forget(self, uid: str) -> None:
        self._events.pop(uid, None)
        self._requested_at.pop(uid, None)
