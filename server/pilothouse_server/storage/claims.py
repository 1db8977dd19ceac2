"""Claims of storage: the manifest, the struct, and the volume's state computed from a claim.

A claim is applied with the platform's own fields only. The volume that the cluster binds to it (`volumeName`) and a
default class remain fields of the cluster. `observe_claim` is a pure function; the phase decides:

    Bound -> bound     Lost -> failed     Pending -> available, or failed if its newest event is a warning

A claim itself has no reason for being pending; only its events have (`unexplained`). If the cluster refuses the claim
(`Applied` is False), reason and message show the refusal, but the volume is failed only if no claim exists.

A bound claim that no longer exists was deleted by somebody else, usually with its data. An empty claim in its place
would look as if nothing had happened. So the volume shows the claim as lost (`lost`), and a caller has to request a new
one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from pilothouse_manifests.table import CLAIM
from pilothouse_manifests.writing import writer
from pilothouse_server.kubernetes.conditions import APPLIED, MESSAGE_LIMIT, REASON_LIMIT, set_condition
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Invalid
from pilothouse_server.kubernetes.objects import (
    EventObject,
    KubernetesObject,
    Manifest,
    Name,
    ObjectCondition,
    Partial,
    Resource,
)
from pilothouse_server.kubernetes.ownership import DOMAIN, MANAGED_BY, MANAGER, NAMESPACE
from pilothouse_server.storage.model import CLAIM_LOST, ObservedVolume, Volume
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.quantity import ZERO, Quantity
from pilothouse_server.values.resources import Condition

RESIZING = "Resizing"
VOLUME_UID = f"{DOMAIN}/volume-uid"
_RESIZED = "Resized"
_LONGEST_QUANTITY = 20
_write_claim = writer(CLAIM)
# Conditions of a claim that grows, or that cannot grow; the first one that is true is shown.
_RESIZE_CONDITIONS = ("ControllerResizeError", "NodeResizeError", "FileSystemResizePending", "Resizing")


class ClaimResources(Partial, frozen=True, rename="camel"):
    requests: dict[str, str] | None = None


class ClaimSpec(Partial, frozen=True, rename="camel"):
    resources: ClaimResources = ClaimResources()
    volume_name: Name = ""
    storage_class_name: Name = ""


class ClaimState(Partial, frozen=True, rename="camel"):
    phase: str = ""
    capacity: dict[str, str] | None = None
    conditions: tuple[ObjectCondition, ...] = ()


class PersistentVolumeClaim(KubernetesObject, frozen=True, rename="camel"):
    spec: ClaimSpec = ClaimSpec()
    status: ClaimState = ClaimState()

    @property
    def requested(self) -> str:
        """The size that the claim requests from the cluster, a quantity."""
        return (self.spec.resources.requests or {}).get("storage", "")

    @property
    def capacity(self) -> str:
        """The size of the bound storage, a quantity; empty if the claim is not bound."""
        return (self.status.capacity or {}).get("storage", "")


class PersistentVolumeSpec(Partial, frozen=True, rename="camel"):
    storage_class_name: str = ""


class PersistentVolume(KubernetesObject, frozen=True, rename="camel"):
    spec: PersistentVolumeSpec = PersistentVolumeSpec()


STORAGE_CLASSES = Resource("/apis/storage.k8s.io/v1", "storageclasses", "StorageClass", KubernetesObject)
PERSISTENT_VOLUMES = Resource("/api/v1", "persistentvolumes", "PersistentVolume", PersistentVolume)
PERSISTENT_VOLUME_CLAIMS = Resource(
    "/api/v1", "persistentvolumeclaims", "PersistentVolumeClaim", PersistentVolumeClaim, marked="content"
)


class ClaimObservation(msgspec.Struct, frozen=True):
    """`observed`: for the volume's row. `unexplained`: only events have the reason why the claim is pending."""

    observed: ObservedVolume
    unexplained: bool = False


def claim(volume: Volume, found: PersistentVolumeClaim | None = None) -> Manifest:
    """Returns the PersistentVolumeClaim of a volume, with the caller's labels and the platform's.

    The platform's labels override in the keys that it selects by. A claim that was taken over gets only the label by
    which the platform finds it. A claim that a StatefulSet created gets that label, and its size unless the claim on
    the cluster (`found`) is larger.
    """
    ours = {MANAGED_BY: MANAGER, NAMESPACE: volume.namespace[:63]}
    metadata: Manifest = {
        "name": volume.kubernetes_name,
        "namespace": volume.kubernetes_namespace,
        "labels": {
            **volume.labels,
            **({} if volume.taken_over or volume.templated else ours),
            VOLUME_UID: volume.uid,
        },
    }
    if volume.annotations:
        metadata["annotations"] = dict(volume.annotations)
    spec = _write_claim(volume)
    if volume.templated:
        is_larger = found is not None and _amount(found.requested) > _amount(volume.size)
        spec = {} if is_larger else {"resources": {"requests": {"storage": volume.size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def without_label(found: KubernetesObject) -> Manifest:
    """Returns the merge patch that releases a claim: it removes the platform's label.

    An apply without the platform's fields would also remove the size of a claim that grew here, because the platform
    owns that field. The patch has the uid, so that a recreated claim is not changed.
    """
    return {"metadata": {"uid": found.metadata.uid, "labels": {VOLUME_UID: None}}}


def is_given_back(volume: Volume, found: KubernetesObject) -> bool:
    """Returns whether the deletion of a volume leaves its claim on the cluster, because the claim existed before it."""
    return volume.given_back or found.metadata.uid == volume.taken_over


def is_ours(volume: Volume, found: KubernetesObject) -> bool:
    """Returns whether a claim belongs to this volume: it has its uid, or was taken over and has no owner yet.

    A claim with the name of an owned volume is that of its StatefulSet, even with the label of an earlier volume.
    """
    if volume.owner and volume.deletion_requested_at is None:
        return True
    label = found.metadata.label(VOLUME_UID)
    if label:
        return label == volume.uid
    if volume.templated and not volume.owner:
        return True
    return bool(volume.taken_over) and found.metadata.uid == volume.taken_over


def observe_claim(
    volume: Volume,
    found: PersistentVolumeClaim | None,
    events: Iterable[EventObject] = (),
    *,
    now: datetime,
) -> ClaimObservation:
    """Returns the volume's state computed from the claim; `volume.observed` has the previous state."""
    before = volume.observed
    unexplained = False
    volume = _with_loss(volume, found, now)
    if volume.deletion_requested_at is not None:
        observed = msgspec.structs.replace(before, status="deleted", **_leaving(found))
    elif found is None:
        observed = ObservedVolume()
    else:
        observed, unexplained = _by_phase(found, events)
    observed = _with_claim(observed, before, found)
    refusal = refused(volume)
    if refusal is not None and volume.deletion_requested_at is None:
        observed = msgspec.structs.replace(
            observed,
            status="failed" if found is None else observed.status,
            reason=refusal.reason,
            message=refusal.message,
        )
    observed = msgspec.structs.replace(
        observed,
        reason=observed.reason[:REASON_LIMIT],
        message=observed.message[:MESSAGE_LIMIT],
        conditions=_conditions(volume, found, now),
        stale_since=before.stale_since,
    )
    return ClaimObservation(observed, unexplained)


def lost(volume: Volume) -> Condition | None:
    """Returns the condition of a claim that was bound and no longer exists; None for a claim that never was bound."""
    before = volume.observed
    if volume.owner or volume.ends_with_claim:
        # Its StatefulSet creates another one, or has the claim deleted.
        return None
    if volume.is_lost:
        return refused(volume)
    if volume.deletion_requested_at is not None or not (before.persistent_volume or before.status == "bound"):
        return None
    which = f" (uid {before.claim_uid})" if before.claim_uid else ""
    bound = f", bound to PersistentVolume {before.persistent_volume}," if before.persistent_volume else ""
    where = f"{volume.kubernetes_namespace}/{volume.kubernetes_name}"
    message = (
        f"somebody deleted PersistentVolumeClaim {where}{which}{bound} on the cluster: its data are "
        "lost unless its PersistentVolume was kept. "
    )
    message += (
        "Delete the volume"
        if volume.templated
        else "UpdateVolume with replace_lost_claim creates an empty claim in its place"
    )
    return Condition(APPLIED, "False", CLAIM_LOST, message)


def _with_loss(volume: Volume, found: PersistentVolumeClaim | None, now: datetime) -> Volume:
    """Returns the volume with the condition that its claim is lost, or without it if the claim exists again."""
    if found is None:
        refusal = refused(volume)
        # A claim of another owner with this name is the more direct reason.
        condition = None if refusal is not None and refusal.reason == NAME_TAKEN else lost(volume)
    else:
        # Somebody recreated the claim; it has not been compared with the desired state yet.
        condition = Condition(APPLIED, "Unknown", "Found") if volume.is_lost else None
    if condition is None:
        return volume
    conditions = set_condition(volume.observed.conditions, condition, now)
    return msgspec.structs.replace(
        volume, observed=msgspec.structs.replace(volume.observed, conditions=conditions)
    )


def _with_claim(
    observed: ObservedVolume, before: ObservedVolume, found: PersistentVolumeClaim | None
) -> ObservedVolume:
    if found is None:
        return msgspec.structs.replace(
            observed,
            claim_uid=before.claim_uid,
            persistent_volume=before.persistent_volume,
            storage_class=before.storage_class,
        )
    return msgspec.structs.replace(
        observed,
        claim_uid=found.metadata.uid,
        persistent_volume=found.spec.volume_name if found.status.phase in ("Bound", "Lost") else "",
        storage_class=found.spec.storage_class_name,
    )


def in_one_line(refusal: Invalid) -> Invalid:
    """Returns the refusal without the multi-line structure difference that the API server appends."""
    line = refusal.message.partition("\n")[0]
    causes = tuple(
        msgspec.structs.replace(cause, message=cause.message.partition("\n")[0]) for cause in refusal.causes
    )
    return type(refusal)(line, code=refusal.code, status_reason=refusal.status_reason, causes=causes)


def refused(volume: Volume) -> Condition | None:
    """Returns the condition for a refusal by the cluster; None if the cluster refused nothing."""
    return next(
        (each for each in volume.observed.conditions if each.type == APPLIED and each.status == "False"), None
    )


def _by_phase(found: PersistentVolumeClaim, events: Iterable[EventObject]) -> tuple[ObservedVolume, bool]:
    leaving = _leaving(found) if found.metadata.deletion_timestamp is not None else {}
    if found.status.phase == "Bound":
        bound = ObservedVolume(status="bound", capacity=found.capacity[:_LONGEST_QUANTITY])
        return msgspec.structs.replace(bound, **leaving), False
    newest = _newest(found, events)
    if found.status.phase == "Lost":
        message = newest.message if newest else "the storage behind the claim is gone"
        return ObservedVolume(status="failed", reason="Lost", message=message), newest is None
    if leaving:
        return msgspec.structs.replace(ObservedVolume(), **leaving), False
    if newest is None:
        return ObservedVolume(reason="Pending", message="the claim waits for storage"), True
    failing = newest.type == "Warning"
    return ObservedVolume("failed" if failing else "available", newest.reason, newest.message), True


def _leaving(found: PersistentVolumeClaim | None) -> dict[str, str]:
    if found is None or found.metadata.deletion_timestamp is None:
        return {"reason": "", "message": ""}
    held = ", ".join(found.metadata.finalizers)
    return {
        "reason": "Terminating",
        "message": f"the claim is being deleted; it waits for the finalizers {held}" if held else "",
    }


def _newest(found: PersistentVolumeClaim, events: Iterable[EventObject]) -> EventObject | None:
    begin = datetime.min.replace(tzinfo=UTC)
    own = [event for event in events if event.involved_object.uid == found.metadata.uid]
    return max(own, key=lambda event: event.time or begin, default=None)


def _conditions(volume: Volume, found: PersistentVolumeClaim | None, now: datetime) -> tuple[Condition, ...]:
    conditions = volume.observed.conditions
    resizing = _resizing(volume, found)
    if resizing is not None:
        return set_condition(conditions, resizing, now)
    before = next((each for each in conditions if each.type == RESIZING), None)
    if before is None:
        return conditions
    if before.status == "True":
        return set_condition(conditions, Condition(RESIZING, "False", _RESIZED), now)
    if before.reason == _RESIZED:
        return conditions
    # The refused growth is no longer wanted, so nothing was resized.
    return without_refused_growth(conditions)


def without_refused_growth(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Returns the conditions without that of a growth that the cluster refused."""
    return tuple(
        each
        for each in conditions
        if each.type != RESIZING or each.status == "True" or each.reason == _RESIZED
    )


def _resizing(volume: Volume, found: PersistentVolumeClaim | None) -> Condition | None:
    if found is None:
        return None
    reported = {each.type: each for each in found.status.conditions if each.status == "True"}
    for name in _RESIZE_CONDITIONS:
        if name in reported:
            return Condition(RESIZING, "True", name, reported[name].message[:MESSAGE_LIMIT])
    requested = _amount(found.requested)
    refusal = refused(volume)
    if refusal is not None and _amount(volume.size) > requested:
        return Condition(RESIZING, "False", refusal.reason, refusal.message)
    if found.status.phase == "Bound" and requested > _amount(found.capacity):
        return Condition(RESIZING, "True", "Requested")
    return None


def _amount(text: str) -> Quantity:
    try:
        return Quantity.parse(text) if text else ZERO
    except InvalidValueError:
        return ZERO
