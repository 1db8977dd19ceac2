"""The generations of Deployments after our own applies, by which the observer recognises changes by others; of carried
objects the versions, by which it recognises a state that the worker has written.

Known in this process only. Elsewhere, or after a restart, our own change looks like another client's and
costs one reconciliation, or one look, that changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

KEPT = 50_000


class AppliedGenerations:
    """Our last generation by the Deployment's uid; the oldest are dropped first.

    It is the last, not the highest: on a cluster that was put back, generations begin lower again.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._generations: OrderedDict[str, int] = OrderedDict()
        self._kept = kept

    def record(self, uid: str, generation: int) -> None:
        """Records the generation that one of our applies returned."""
        self._generations[uid] = generation
        self._generations.move_to_end(uid)
        while len(self._generations) > self._kept:
            self._generations.popitem(last=False)

    def take(self, uid: str, version: str) -> bool:
        """Returns whether our last apply led to exactly this version; once, because a database that is put back to an
        earlier state does not have it.
        """
        if version.isdecimal() and self._generations.get(uid) == int(version):
            del self._generations[uid]
            return True
        return False

    def covers(self, uid: str, generation: int) -> bool:
        """Returns whether our last apply was at this generation or later."""
        return generation <= self._generations.get(uid, 0)
