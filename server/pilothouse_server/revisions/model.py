"""Values of revisions, for every noun: `D` is the form in which a noun stores its desired state."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from pilothouse_server.encryption.envelopes import Sealed

D = TypeVar("D")


class RevisedResource(msgspec.Struct, frozen=True, gc=False):
    """A resource that has revisions: its type, the id of its row, its permanent uid and its namespace."""

    resource_type: str
    id: int
    uid: str
    namespace_id: int


class Revision(msgspec.Struct, Generic[D], frozen=True):
    """One revision. `before`: the state of the previous revision, if that is still stored.

    `origin`: number of the revision that it restored; None if it is not a rollback.
    """

    number: int
    desired: D
    created_at: datetime
    before: D | None = None
    origin: int | None = None
    operation_id: str = ""
    created_by: str = ""


class KeptValues(msgspec.Struct, frozen=True):
    """The encrypted values of a secret, stored with the revision `number`; None if they were purged."""

    number: int
    sealed: Sealed | None
