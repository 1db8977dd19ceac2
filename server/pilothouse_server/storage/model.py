"""Values of volumes, independent of storage, transport and clusters.

Only claims have an object on the cluster. The other four types are parts of the pods that mount them, so they are
usable as soon as they are stored. Quantities are Kubernetes quantities in normalised form. As in the API, empty text
means unset.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.resources import Condition, Reconciled
from pilothouse_server.values.volumes import AccessMode, VolumeType

Status = Literal["available", "bound", "failed", "deleted"]

CLAIM: VolumeType = "persistent_volume_claim"
# The reason of `Applied` for a bound claim that somebody else deleted.
CLAIM_LOST = "ClaimLost"


class ObservedVolume(msgspec.Struct, frozen=True):
    """The state last observed on the cluster; volumes without an object there have only `status`.

    `claim_uid`, `persistent_volume` (empty if not bound) and `storage_class` are the last observed values of the claim.
    They stay when the claim is deleted.
    """

    status: Status = "available"
    reason: str = ""
    message: str = ""
    capacity: str = ""
    claim_uid: str = ""
    persistent_volume: str = ""
    storage_class: str = ""
    conditions: tuple[Condition, ...] = ()
    stale_since: datetime | None = None


class Volume(Reconciled, msgspec.Struct, frozen=True, kw_only=True):
    """A volume as stored: the desired state, the observed state, and the reconciler's records.

    `access_mode` is the widest of `access_modes`. `volume_mode` is `Block`, or empty.

    `mounted_by`: names of the containers that mount it, except those being deleted. `taken_over`: uid of the claim on
    the cluster that an import took over; empty if the platform created the claim.

    `templated`: a StatefulSet creates the claim from a template, and the platform only labels and enlarges it. `owner`:
    the container whose pod needs such a claim now; empty if none does. `given_back`: its StatefulSet was imported with
    it, so deleting the volume leaves the claim. `ends_with_claim`: the cluster deletes the claim by the retention
    policy, and the row is then deleted, too.
    """

    id: int = 0
    uid: str = ""
    name: str
    kubernetes_name: str = ""
    taken_over: str = ""
    type: VolumeType
    storage_class: str = ""
    size: str = ""
    access_mode: AccessMode | Literal[""] = ""
    access_modes: tuple[str, ...] = ()
    volume_mode: str = ""
    mount_path: str = ""
    host_path: str = ""
    source_name: str = ""
    medium: str = ""
    optional: bool = False
    external: bool = False
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    observed: ObservedVolume = ObservedVolume()
    mounted_by: tuple[str, ...] = ()
    owner: str = ""
    owner_id: int | None = None
    templated: bool = False
    given_back: bool = False
    ends_with_claim: bool = False

    @property
    def is_claim(self) -> bool:
        """Whether the volume has an object on the cluster."""
        return self.type == CLAIM

    @property
    def is_lost(self) -> bool:
        """Whether its claim is known to be lost."""
        return any(each.type == "Applied" and each.reason == CLAIM_LOST for each in self.observed.conditions)


class Claims(msgspec.Struct, frozen=True):
    """The claims that the pods of a container need. `needed`: templates and ordinals, in the form that SQL reads."""

    container_id: int
    namespace_id: int
    needed: dict[str, Any]


class CachedVolume(CachedMessage, frozen=True):
    """A volume with its cached message, and the containers that mount it."""

    mounted_by: list[str]
