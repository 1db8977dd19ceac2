"""What a write-back leaves for the queue to do."""

from __future__ import annotations

import msgspec

from pilothouse_server.reconcile.repository.work_queue import ResourceType


class Written(msgspec.Struct, frozen=True):
    """`again_seconds`: look again then. `removed`: the resource is gone, and its work with it.

    `own_change`: uid and generation of the Deployment that our apply led to.
    """

    resource_type: ResourceType
    again_seconds: float | None = None
    removed: bool = False
    own_change: tuple[str, int] | None = None
