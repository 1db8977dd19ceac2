"""The due times of checks of many resources."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Schedule:
    """Due times by uid. `changed` is called whenever a time is set."""

    def __init__(self, changed: Callable[[], None], clock: Callable[[], float] = monotonic) -> None:
        self._changed = changed
        self._clock = clock
        self._due: dict[str, float] = {}

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a resource in `in_seconds`; an earlier scheduled time stays."""
        due = self._clock() + in_seconds
        self._due[uid] = min(due, self._due.get(uid, due))
        self._changed()

    def postpone(self, uid: str, *, in_seconds: float) -> None:
        """Schedules a check of a resource in `in_seconds`, in place of any scheduled time."""
        self._due[uid] = self._clock() + in_seconds
        self._changed()

    def take(self, most: int | None = None) -> list[str]:
        """Removes and returns up to `most` due uids, the longest waiting first."""
        now = self._clock()
        due = sorted((when, uid) for uid, when in self._due.items() if when <= now)[:most]
        for _, uid in due:
            del self._due[uid]
        return [uid for _, uid in due]

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next uid is due, 0 if one is due now; None if none is scheduled."""
        soonest = min(self._due.values(), default=None)
        return None if soonest is None else max(0.0, soonest - self._clock())
