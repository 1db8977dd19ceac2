"""Volumes on their clusters, each a PersistentVolumeClaim.

The worker writes the result of the apply (the condition `Applied`, the observed generation); `claim_observer` writes
whether the claim is bound. A claim is ours if it carries the uid of our row; any other claim of the same name is left
alone (`NameTaken`). A finalizer keeps a claim that pods still use: its row stays until the claim is deleted.

A claim that an import took over is ours, too. Another client created it, so the deletion of its volume gives it back:
our label is removed, the claim and its data stay.

A refusal for an existing claim (it cannot shrink, its class does not let it grow) takes nothing away: the storage
stays bound, and the status also shows the refusal.

A claim that was bound and vanished is not created again, see `storage.claims`.

The cluster creates the claims of a StatefulSet from templates (`volume.templated`). The worker waits for such a claim,
and labels and enlarges it. The row of a claim that no pod needs is deleted with the claim.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.errors import (
    NAME_TAKEN,
    ClusterError,
    Conflict,
    Invalid,
)
from pilothouse_server.kubernetes.ownership import NAMESPACE
from pilothouse_server.reconcile.apply import managed_fields_diff
from pilothouse_server.reconcile.apply.row_reconciler import (
    AGAIN_SECONDS,
    OneByOne,
    dealt_with,
    failed,
    namespace_retry_seconds,
    read_namespace_not_ready,
    waiting,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Progress, Result
from pilothouse_server.reconcile.repository import volume_status
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.storage import claims
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS, PersistentVolumeClaim
from pilothouse_server.storage.model import ObservedVolume, Volume
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_GONE_AGAIN_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 20.0


class LoadedVolume(msgspec.Struct):
    """`namespace_not_ready`: why its namespace is not on the cluster; None if it is.

    `found`: the claim as `act` found it.
    """

    volume: Volume
    namespace_not_ready: Condition | None
    found: PersistentVolumeClaim | None = None


class VolumeProgress(Progress, frozen=True):
    """`condition`: why the claim is not applied; None if it is."""

    condition: Condition | None = None


class VolumeReconciler(OneByOne[Volume, LoadedVolume, VolumeProgress]):
    """Applies, deletes and gives back PersistentVolumeClaims."""

    async def load_one(self, transaction: ReadTransaction, work: Work) -> LoadedVolume | None:
        """Returns the volume in its desired state; None if it is deleted."""
        volume = await volume_status.VOLUMES.get(transaction, work.resource_id)
        if volume is None:
            return None
        going = volume.deletion_requested_at is not None
        namespace_not_ready = await read_namespace_not_ready(transaction, volume.namespace_id, going=going)
        return LoadedVolume(volume, namespace_not_ready)

    async def act(self, client: LeasedClient, loaded: LoadedVolume) -> VolumeProgress:
        """Applies the claim to the cluster or deletes it there. Raises ClusterError, LeaseLost."""
        volume = loaded.volume
        if volume.deletion_requested_at is not None:
            if loaded.namespace_not_ready is not None:
                # The claim was never applied or taken over there: one with its name belongs to another owner.
                return VolumeProgress(gone=True)
            return await _delete(client, volume)
        if (namespace_not_ready := loaded.namespace_not_ready) is not None:
            # The namespace's own work creates it; the claim is applied after that.
            return VolumeProgress(
                condition=namespace_not_ready, again_seconds=namespace_retry_seconds(namespace_not_ready)
            )
        return await _apply(client, loaded)

    async def lock_one(self, transaction: Transaction, resource_id: int) -> Volume | None:
        """Locks and returns the row; None if it is deleted."""
        return await volume_status.VOLUMES.get(transaction, resource_id, lock=True)

    async def write_error(
        self, transaction: Transaction, row: Volume, loaded: LoadedVolume, error: ClusterError, attempts: int
    ) -> None:
        """Writes a refusal, or a failure that occurred more than once."""
        if row.deletion_requested_at is not None:
            return
        refused = error.outlook == "refused"
        if not refused and attempts == 0:
            # A first failure is not written: most transient failures are over at the second attempt.
            return
        observed = _with_condition(row.observed, failed(error, refused=refused), transaction)
        generation = row.observed_generation
        if refused:
            generation = dealt_with(row, loaded.volume.generation)
            observed = _refused(row, loaded, observed, transaction)
        await volume_status.VOLUMES.write(transaction, [ObservedChange(row, observed, generation)])

    async def write_deleted(self, transaction: Transaction, row: Volume) -> Result:
        """Deletes the row, with its tombstone event."""
        await volume_status.delete(transaction, row)
        return Result(removed=True)

    async def write_one(
        self, transaction: Transaction, row: Volume, loaded: LoadedVolume, progress: VolumeProgress
    ) -> Result:
        """Writes whether the claim is applied."""
        again = progress.again_seconds
        if row.deletion_requested_at is not None:
            return Result(again_seconds=AGAIN_SECONDS if again is None else again)
        condition = progress.condition or Condition(APPLIED, "True", "Applied")
        observed = _without_refusal(row) if progress.condition is None else row.observed
        observed = _with_condition(observed, condition, transaction)
        if condition.status == "False":
            observed = _observed(row, observed, loaded, transaction)
        generation = row.observed_generation
        if again is None:
            generation = dealt_with(row, loaded.volume.generation)
        await volume_status.VOLUMES.write(transaction, [ObservedChange(row, observed, generation)])
        return Result(again_seconds=again)


async def _apply(client: LeasedClient, loaded: LoadedVolume) -> VolumeProgress:
    volume = loaded.volume
    namespace, name = volume.kubernetes_namespace, volume.kubernetes_name
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, namespace, name)
    if found is not None and not claims.is_ours(volume, found):
        raise Conflict(
            f"PersistentVolumeClaim {namespace}/{name} exists and does not belong to this volume",
            status_reason=NAME_TAKEN,
        )
    if found is not None and found.metadata.deletion_timestamp is not None:
        # Another client is deleting it; an apply would succeed and be lost.
        return VolumeProgress(
            condition=waiting("Deleting", "the PersistentVolumeClaim is being deleted"),
            again_seconds=AGAIN_SECONDS,
        )
    if found is None and (loss := claims.lost(volume)) is not None:
        return VolumeProgress(condition=loss, objects={})
    if found is None and volume.templated:
        return _without_claim(volume)
    if found is None:
        await client.check_namespace_ownership(volume.namespace_ref)
    loaded.found = found
    wanted = claims.claim(volume, found)
    settled = found is not None and volume.observed_generation >= volume.generation
    if settled and await managed_fields_diff.live_matches_manifest(client, PERSISTENT_VOLUME_CLAIMS, wanted):
        assert found is not None
        return VolumeProgress(objects=fingerprints.by_object((PERSISTENT_VOLUME_CLAIMS, found)))
    admitted = Admitted(volume.kubernetes_namespace, frozenset({NAMESPACE, claims.VOLUME_UID}), frozenset())
    try:
        applied = await client.apply(PERSISTENT_VOLUME_CLAIMS, wanted, admitted, force=True)
    except Invalid as refusal:
        raise claims.in_one_line(refusal) from None
    return VolumeProgress(objects=fingerprints.by_object((PERSISTENT_VOLUME_CLAIMS, applied)))


def _without_claim(volume: Volume) -> VolumeProgress:
    """Returns the progress of a volume whose claim its StatefulSet has not created."""
    if not volume.owner:
        return VolumeProgress(gone=True)
    message = f"StatefulSet {volume.owner} creates the claim with the first pod that needs it"
    if volume.observed.claim_uid:
        message = (
            f"somebody deleted PersistentVolumeClaim {volume.kubernetes_name} (uid {volume.observed.claim_uid}): its "
            f"data are lost unless its PersistentVolume was kept. StatefulSet {volume.owner} creates an empty one "
            "with the next pod that needs it"
        )
    # Pods start quickly or much later: the longer the wait, the less often the cluster is read.
    age = (datetime.now(UTC) - (volume.updated_at or datetime.now(UTC))).total_seconds()
    again = min(max(age / 2, AGAIN_SECONDS), _LONGEST_WAIT_SECONDS)
    return VolumeProgress(condition=waiting("WaitingForStatefulSet", message), again_seconds=again)


async def _delete(client: LeasedClient, volume: Volume) -> VolumeProgress:
    namespace, name = volume.kubernetes_namespace, volume.kubernetes_name
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, namespace, name)
    if found is None or not claims.is_ours(volume, found):
        return VolumeProgress(gone=True)
    if found.metadata.deletion_timestamp is not None:
        return VolumeProgress(again_seconds=AGAIN_SECONDS)
    if claims.is_given_back(volume, found):
        patch = claims.without_label(found)
        await client.merge_patch(PERSISTENT_VOLUME_CLAIMS, volume.namespace_ref, name, patch)
        return VolumeProgress(gone=True)
    uid = found.metadata.uid
    home = volume.namespace_ref
    await client.delete(PERSISTENT_VOLUME_CLAIMS, home, name, uid=uid, propagation="Background")
    return VolumeProgress(again_seconds=_GONE_AGAIN_SECONDS)


def _refused(
    row: Volume, loaded: LoadedVolume, observed: ObservedVolume, transaction: Transaction
) -> ObservedVolume:
    shown = _observed(row, observed, loaded, transaction)
    if loaded.found is None:
        return shown
    # The observer has a newer state of the claim than the read before the apply.
    return msgspec.structs.replace(shown, status=observed.status, capacity=observed.capacity)


def _observed(
    row: Volume, observed: ObservedVolume, loaded: LoadedVolume, transaction: Transaction
) -> ObservedVolume:
    """Returns the state of the claim that `act` found, with new conditions."""
    subject = msgspec.structs.replace(row, observed=observed)
    return claims.observe_claim(subject, loaded.found, now=transaction.now).observed


def _without_refusal(row: Volume) -> ObservedVolume:
    """Returns the status without the message of a refusal that is over.

    The observer writes the new one.
    """
    old, observed = claims.refused(row), row.observed
    conditions = claims.without_refused_growth(observed.conditions)
    observed = msgspec.structs.replace(observed, conditions=conditions)
    if old is None or (observed.reason, observed.message) != (old.reason, old.message):
        return observed
    status = "available" if observed.status == "failed" else observed.status
    return msgspec.structs.replace(observed, status=status, reason="", message="")


def _with_condition(
    observed: ObservedVolume, condition: Condition, transaction: Transaction
) -> ObservedVolume:
    return msgspec.structs.replace(
        observed, conditions=set_condition(observed.conditions, condition, transaction.now)
    )
