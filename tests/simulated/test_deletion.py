"""Deletion: propagation policies, grace periods and namespaces, as recorded and by the rules they promise."""

from __future__ import annotations

from .recorded_cluster import NODE_VALUES, recorded_cluster
from .replay import check, replay

_DELETION = "03f-deployment-delete"
# Reads sent a millisecond after the deletion.
_RACING = frozenset({16, 20})
# The pods of a deployment deleted in the background, a millisecond later: the collector may not have come by yet.
_TOO_EARLY = frozenset({26})


async def test_deletion_is_as_recorded() -> None:
    async with recorded_cluster(8, stop=1.2, remove=0.9) as cluster:
        differences = await replay(cluster, _DELETION, varying=NODE_VALUES, racing=_RACING, skip=_TOO_EARLY)
    check(_DELETION, differences)
