"""Versions that this process's own writes led to, so that observers recognise them.

For Deployments: the generation after our last apply. A higher generation comes from another client. For carried
objects: the version whose state the worker has already written to the database.

They are known in this process only. On another server, or after a restart, our own change looks like another client's
and costs one reconciliation or one read that changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

KEPT = 50_000


class AppliedGenerations:
    """Our last generation by the object's uid; the oldest entries are dropped first.

    It is the last, not the highest: on a cluster that was restored from a backup, generations start lower again.
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
        """Returns whether our last apply led to exactly this version, and drops it.

        It returns true only once, because a database that is restored to an earlier state does not have that version.
        """
        if version.isdecimal() and self._generations.get(uid) == int(version):
            del self._generations[uid]
            return True
        return False

    def covers(self, uid: str, generation: int) -> bool:
        """Returns whether our last apply was at this generation or later."""
        return generation <= self._generations.get(uid, 0)
