"""Generations of Deployments that our own applies led to, so that the observer can tell others' changes from ours.

Known in this process only. Elsewhere, or after a restart, a change of ours looks like somebody else's and costs one
reconciliation that changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

KEPT = 50_000


class OwnChanges:
    """The newest generation of ours by the Deployment's uid; the oldest are forgotten first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._generations: OrderedDict[str, int] = OrderedDict()
        self._kept = kept

    def note(self, uid: str, generation: int) -> None:
        """Our apply answered with this generation."""
        self._generations[uid] = max(generation, self._generations.get(uid, 0))
        self._generations.move_to_end(uid)
        while len(self._generations) > self._kept:
            self._generations.popitem(last=False)

    def covers(self, uid: str, generation: int) -> bool:
        """Whether everything up to `generation` was there when we applied last."""
        return generation <= self._generations.get(uid, 0)
