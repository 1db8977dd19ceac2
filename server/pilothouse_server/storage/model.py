"""Values of volumes, independent of storage, transport and clusters.

Only claims have an object on the cluster. The other four types are parts of the pods that mount them, so they are
usable from the moment they are stored. Quantities are Kubernetes quantities in normalised form; empty text means unset,
as in the API.
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
# The reason of `Applied` for a claim that was bound and that somebody else deleted.
CLAIM_LOST = "ClaimLost"


class ObservedVolume(msgspec.Struct, frozen=True):
    """The state last seen on the cluster; only `status` is set for volumes without an object there.

    `claim_uid`, `persistent_volume` (to which it is bound, or empty) and `storage_class` are the claim's as last seen:
    they stay when it is gone.
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
    """A volume as stored: wanted, observed and the bookkeeping between them.

    `access_mode` is the widest of `access_modes`. `volume_mode` is `Block`, or empty.

    `mounted_by` names the containers that mount it, less those being deleted. `taken_over`: uid of the claim that was
    on the cluster before us; empty where the platform made it.

    `templated`: a StatefulSet makes the claim from a template, and the platform only labels and enlarges it. `owner`:
    the container whose pod needs such a claim now; empty if none does. `given_back`: its StatefulSet was imported with
    it, so the deletion of the volume leaves the claim. `ends_with_claim`: the cluster deletes the claim by the
    retention policy, and the row goes with it.
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
        """Whether it has an object on the cluster."""
        return self.type == CLAIM

    @property
    def is_lost(self) -> bool:
        """Whether its claim is known to be lost."""
        return any(each.type == "Applied" and each.reason == CLAIM_LOST for each in self.observed.conditions)


class Claims(msgspec.Struct, frozen=True):
    """The claims that the pods of a container need. `needed`: templates and ordinals, as the database reads them."""

    container_id: int
    namespace_id: int
    needed: dict[str, Any]


class CachedVolume(CachedMessage, frozen=True):
    """A volume that is not rendered, and the containers that mount it."""

    mounted_by: list[str]
