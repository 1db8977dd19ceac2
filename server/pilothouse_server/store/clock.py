"""The time for records: the server's time, or the database's if that is much later.

A record's time decides in which partition it lies and until when it is kept, and so it does of the answer
that is kept for replays. Where the clocks of a server and of the database are more than a minute apart, one
of them is wrong, and nobody can tell which. By a time that is too late a record is kept longer; by one that
is too early it would be dropped before its time. So the later one counts, and the difference is reported.
(Deletions by time use the earlier one: `Clocks`.)

The feed notes the database's time with each of its looks, so it costs no round trip. Between two looks that time is
advanced by the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

APART = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time by the clock of this server or of the database: the `earlier` and the `later` of the two.

    Rows expire by the `earlier` one: a clock that is ahead for seconds would delete keys and sessions for
    good. A row counts as a leftover of a wrong clock if its time is after the `later` one.
    """

    earlier: datetime
    later: datetime


class RecordClock:
    """The clock of one server's records. `note` takes the database's time; `now` returns the time for a record."""

    def __init__(self) -> None:
        self._apart = False
        # The database's time and when it was noted, where it is later than ours.
        self._later: tuple[datetime, float] | None = None

    def note(self, theirs: datetime) -> None:
        """Takes the time of the database, as it answered just now."""
        ahead = theirs - datetime.now(UTC)
        apart = abs(ahead) > APART
        if apart and not self._apart:
            log.warning(
                "the clocks of the database and of this server are apart: records have the later time",
                database_ahead_seconds=round(ahead.total_seconds()),
            )
        self._apart = apart
        self._later = (theirs, monotonic()) if ahead > APART else None

    def now(self) -> datetime:
        """Returns the time in UTC."""
        if self._later is None:
            return datetime.now(UTC)
        theirs, since = self._later
        return theirs + timedelta(seconds=monotonic() - since)
