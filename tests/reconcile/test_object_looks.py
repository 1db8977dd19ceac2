"""A carried object is not checked again if a worker of this process has written its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import uuid4

import msgspec

from pilothouse_server.kubernetes.objects import AnyObject
from pilothouse_server.kubernetes.ownership import OBJECT_UID
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.object_observer import ObjectObserver, ObjectObserverSettings
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations

UID, ON_CLUSTER = str(uuid4()), str(uuid4())


class Looking(ObjectObserver):
    """Records the objects that it would lock and compare."""

    def __init__(self, applied: AppliedGenerations) -> None:
        # Neither the database nor the cluster is used.
        nowhere = cast("LeasedCluster", None)
        super().__init__(nowhere, applied, ObjectObserverSettings(new_seconds=0.0))
        self.looked: list[str] = []

    async def write(self, uids: Sequence[str]) -> None:
        """Records the uids."""
        self.looked += uids

    async def seen(self, old: AnyObject | None, new: AnyObject | None) -> list[str]:
        """Passes on a change as the watch reports it; returns the uids of the checked objects."""
        self.looked.clear()
        self._changed(old, new)
        await self.write_due()
        return list(self.looked)


def found(version: str, **fields: Any) -> AnyObject:
    """Returns the object as the cluster has it at a version."""
    metadata = {"name": "web", "namespace": "shop", "uid": ON_CLUSTER, "labels": {OBJECT_UID: UID}}
    return msgspec.convert({"metadata": {**metadata, "resourceVersion": version}, **fields}, AnyObject)


async def test_an_object_is_checked_unless_this_process_wrote_its_state() -> None:
    applied = AppliedGenerations()
    observer = Looking(applied)
    assert await observer.seen(None, found("17")) == [UID], "nobody has written it"
    applied.record(ON_CLUSTER, 17)
    assert await observer.seen(None, found("17")) == []
    assert await observer.seen(None, found("17")) == [UID], (
        "each result counts once: the database may go back"
    )
    applied.record(ON_CLUSTER, 17)
    assert await observer.seen(None, found("18", status={"seen": True})) == [UID], "a controller was quicker"
    assert await observer.seen(found("17"), found("18")) == [UID]
    assert await observer.seen(found("18"), None) == [UID]
    applied.record(ON_CLUSTER, 0)
    assert await observer.seen(None, found("")) == [UID], "a version that is no number proves nothing"
