"""Values of carried objects, independent of storage, transport and clusters.

The desired state is one document, JSON text in the form of `documents`: the whole object with its name, labels and
annotations. Labels and annotations are also stored as values, because lists filter by them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

import msgspec

from pilothouse_server.values.resources import Condition, Reconciled

ObjectStatus = Literal["pending", "active", "failed", "deleted"]
ObjectHealth = Literal["unknown", "healthy", "progressing", "degraded"]
ObjectDriftPolicy = Literal["repair", "report", "adopt"]


class ObjectBackend(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A Service that an object routes traffic to. `reason`: why it is not ready."""

    service: str
    port: str = ""
    ready: bool = False
    reason: str = ""


class ObjectCertificate(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The Secret of a certificate that an object names. `reason`: why it is not present."""

    secret_name: str
    present: bool = False
    names: tuple[str, ...] = ()
    expires_at: datetime | None = None
    reason: str = ""


class Contest(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A field that was taken back from another manager, and the recent times."""

    field: str
    manager: str = ""
    times: tuple[datetime, ...] = ()


class ObservedObject(msgspec.Struct, frozen=True):
    """The state last observed on the cluster. `observed_status`: JSON text."""

    status: ObjectStatus = "pending"
    reason: str = ""
    message: str = ""
    health: ObjectHealth = "unknown"
    addresses: tuple[str, ...] = ()
    backends: tuple[ObjectBackend, ...] = ()
    certificates: tuple[ObjectCertificate, ...] = ()
    observed_status: str = ""
    conditions: tuple[Condition, ...] = ()
    contests: tuple[Contest, ...] = ()
    stale_since: datetime | None = None


class ObjectTexts(msgspec.Struct, frozen=True):
    """Texts of an object that may be large and contain secrets, and the facts that decide which values are secret."""

    document: str
    observed_status: str
    namespace: str
    cluster_name: str
    api_group: str
    kind: str


class CarriedObject(Reconciled, msgspec.Struct, frozen=True, kw_only=True):
    """An object as stored: the desired state, the observed state, and the reconciler's records.

    `privileged`: a holder of `object.privileged` created or changed it last. `rights`: those that it was admitted with;
    None if no caller was checked. `taken_over`: uid of the object on the cluster that was taken over.
    """

    id: int = 0
    uid: str = ""
    name: str = ""
    api_version: str = ""
    kind: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    document: str = ""
    drift_policy: ObjectDriftPolicy = "repair"
    protected: bool = False
    privileged: bool = False
    rights: tuple[str, ...] | None = None
    taken_over: str = ""
    observed: ObservedObject = ObservedObject()

    @property
    def api_group(self) -> str:
        """The group of its kind; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def texts(self) -> ObjectTexts:
        """The document and the observed status, with the facts needed to mask them."""
        return ObjectTexts(
            self.document,
            self.observed.observed_status,
            self.namespace,
            self.cluster_name,
            self.api_group,
            self.kind,
        )

    @property
    def document_digest(self) -> str:
        """The SHA-256 of the document, in hexadecimal."""
        return hashlib.sha256(self.document.encode()).hexdigest() if self.document else ""


class ObjectKey(msgspec.Struct, frozen=True):
    """Identifies an object in a namespace: all versions of its group name the same object."""

    api_version: str
    kind: str
    name: str

    @property
    def api_group(self) -> str:
        """The group of the kind."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
