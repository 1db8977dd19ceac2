"""One claim's reconciliation: load, act, write back.

The worker writes what became of the apply (the condition `Applied`, the generation that was dealt with); whether the
claim is bound is written by `claim_observer`, which sees it. A claim is ours when it carries the uid of our row;
another of the same name is left alone, as `NameTaken`. A claim that pods still use is held by its finalizer: its row
stays until it is gone.

The very claim that an import took over is ours, too. It was made by somebody else, and so the deletion of its volume
gives it back: our label goes, the claim and its data stay.

A refusal of a claim that is there already (it cannot shrink, its class does not let it grow) takes nothing away: the
storage stays bound, and the refusal shows beside it.

A claim that was bound and vanished is not made again, see `cluster.claims`.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.kubernetes.claims import (
    NAME_TAKEN,
    PERSISTENT_VOLUME_CLAIMS,
    PersistentVolumeClaim,
    claim,
    in_one_line,
    is_ours,
    lost,
    observe_claim,
    refused,
    without_label,
    without_refused_growth,
)
from pilothouse_server.kubernetes.errors import ClusterError, Conflict, Forbidden, Invalid, NotFound, Refused
from pilothouse_server.kubernetes.observation import APPLIED, set_condition
from pilothouse_server.namespaces import repository as namespaces
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.written import Written
from pilothouse_server.reconcile.repository import volume_status as written_back
from pilothouse_server.reconcile.repository import work_queue as queue
from pilothouse_server.reconcile.repository.volume_status import Change
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.storage import repository as volumes
from pilothouse_server.storage.model import Observed, Volume
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.values.resources import Condition

AGAIN_SECONDS = 0.5
NAMESPACE_AGAIN_SECONDS = 0.2
_MESSAGE_LIMIT = 4096


class Loaded(msgspec.Struct):
    """`namespace_ready`: the namespace was brought to the cluster before. `found`: the claim that `act` met there."""

    volume: Volume
    namespace_ready: bool
    found: PersistentVolumeClaim | None = None


class Result(msgspec.Struct, frozen=True):
    """How far it came. `again_seconds`: the cluster is not done, look again. `gone`: nothing of it is left.

    `condition` says in what way it is not applied; None where it is.
    """

    condition: Condition | None = None
    again_seconds: float | None = None
    gone: bool = False


async def load(store: Store, work: Work) -> Loaded | None:
    """The volume as it is wanted now; None where it is gone."""
    async with store.system_read(snapshot=True) as transaction:
        volume = await volumes.get(transaction, work.resource_id)
        if volume is None:
            return None
        namespace = await namespaces.get(transaction, volume.namespace_id)
        return Loaded(volume, namespace is not None and namespace.observed_generation > 0)


async def act(client: LeasedClient, loaded: Loaded) -> Result:
    """Bring the claim to the cluster or away from it. Raises ClusterError, LeaseLost."""
    volume = loaded.volume
    if volume.deletion_requested_at is None and not loaded.namespace_ready:
        # Its own work makes it; the claim follows as soon as it is there.
        return _waiting(
            "WaitingForNamespace", "its namespace is not on the cluster yet", NAMESPACE_AGAIN_SECONDS
        )
    where = (volume.kubernetes_namespace, volume.kubernetes_name)
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, *where)
    ours = found is not None and is_ours(volume, found)
    leaving = found is not None and found.metadata.deletion_timestamp is not None
    if volume.deletion_requested_at is not None:
        if found is None or not ours:
            return Result(gone=True)
        if not leaving and found.metadata.uid == volume.taken_over:
            await client.merge_patch(PERSISTENT_VOLUME_CLAIMS, *where, without_label(found))
            return Result(gone=True)
        if not leaving:
            uid = found.metadata.uid
            await client.delete(PERSISTENT_VOLUME_CLAIMS, *where, uid=uid, propagation="Background")
        return Result(again_seconds=AGAIN_SECONDS if leaving else 0.05)
    if found is not None and not ours:
        raise Conflict(
            f"PersistentVolumeClaim {where[0]}/{where[1]} exists and does not belong to this volume",
            status_reason=NAME_TAKEN,
        )
    if leaving:
        # Somebody deletes it behind our back; an apply would succeed and be lost.
        return _waiting("Deleting", "the PersistentVolumeClaim is being deleted", AGAIN_SECONDS)
    if found is None and (loss := lost(volume)) is not None:
        return Result(loss)
    loaded.found = found
    try:
        await client.apply(PERSISTENT_VOLUME_CLAIMS, claim(volume), force=True)
    except Invalid as refusal:
        raise in_one_line(refusal) from None
    return Result()


async def write_back(transaction: Transaction, work: Work, loaded: Loaded, outcome: object) -> Written:
    """Write what came of it, under the volume's lock and the work's epoch. Raises LeaseLost."""
    stored = await written_back.lock_id(transaction, work.resource_id)
    if not await queue.hold(transaction, work):
        raise LeaseLost
    if stored is None:
        return Written("volume", removed=True)
    if isinstance(outcome, ClusterError):
        await _write_error(transaction, stored, loaded, outcome, work.attempts)
        return Written("volume")
    assert isinstance(outcome, Result)
    if outcome.gone:
        await written_back.delete(transaction, stored)
        return Written("volume", removed=True)
    if stored.deletion_requested_at is not None:
        again = AGAIN_SECONDS if outcome.again_seconds is None else outcome.again_seconds
        return Written("volume", again_seconds=again)
    condition = outcome.condition or Condition(APPLIED, "True", "Applied")
    observed = stored.observed
    if outcome.condition is None:
        observed = _without_refusal(stored)
    observed = _with_condition(observed, condition, transaction)
    if condition.status == "False":
        told = msgspec.structs.replace(stored, observed=observed)
        observed = observe_claim(told, loaded.found, now=transaction.now).observed
    generation = _seen(stored, loaded) if outcome.again_seconds is None else stored.observed_generation
    await written_back.write(transaction, [Change(stored, observed, generation)])
    return Written("volume", again_seconds=outcome.again_seconds)


async def _write_error(
    transaction: Transaction, stored: Volume, loaded: Loaded, error: ClusterError, attempts: int
) -> None:
    if isinstance(error, NotFound):
        # The namespace vanished behind our back.
        await queue.look_again_at_namespaces(transaction, [int(stored.namespace_id)])
    if stored.deletion_requested_at is not None:
        return
    is_refusal = _is_refusal(error)
    if not is_refusal and attempts == 0:
        # Once is nothing: most of what fails in passing is over at the second attempt.
        return
    condition = Condition(
        APPLIED, "False" if is_refusal else "Unknown", error.reason[:100], error.message[:_MESSAGE_LIMIT]
    )
    observed = _with_condition(stored.observed, condition, transaction)
    if is_refusal:
        told = msgspec.structs.replace(stored, observed=observed)
        shown = observe_claim(told, loaded.found, now=transaction.now).observed
        if loaded.found is not None:
            # The observer knows the claim's state better than what was read before the apply.
            shown = msgspec.structs.replace(shown, status=observed.status, capacity=observed.capacity)
        observed = shown
    # A refusal is an answer: the generation was dealt with. What did not get through was not.
    generation = _seen(stored, loaded) if is_refusal else stored.observed_generation
    await written_back.write(transaction, [Change(stored, observed, generation)])


def _is_refusal(error: ClusterError) -> bool:
    if isinstance(error, Conflict) and error.status_reason == NAME_TAKEN:
        return True
    if isinstance(error, Forbidden) and error.namespace_terminating:
        return False
    return isinstance(error, Refused) and not error.retryable and not isinstance(error, NotFound)


def _without_refusal(stored: Volume) -> Observed:
    """Take back the words of a refusal that is over; the observer fills in what there is to say instead."""
    old, observed = refused(stored), stored.observed
    observed = msgspec.structs.replace(observed, conditions=without_refused_growth(observed.conditions))
    if old is None or (observed.reason, observed.message) != (old.reason, old.message):
        return observed
    status = "available" if observed.status == "failed" else observed.status
    return msgspec.structs.replace(observed, status=status, reason="", message="")


def _with_condition(observed: Observed, condition: Condition, transaction: Transaction) -> Observed:
    return msgspec.structs.replace(
        observed, conditions=set_condition(observed.conditions, condition, transaction.now)
    )


def _seen(stored: Volume, loaded: Loaded) -> int:
    """The generation that was acted on; the volume may have moved on since, never back."""
    return max(stored.observed_generation, min(loaded.volume.generation, stored.generation))


def _waiting(reason: str, message: str, again_seconds: float) -> Result:
    return Result(Condition(APPLIED, "Unknown", reason, message), again_seconds)
