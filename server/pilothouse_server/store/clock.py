"""The time for records: the server's, or the database's if that is much later.

A record's time determines its partition and how long it is stored. The same holds for a response that is stored for
replays. If the clocks of a server and of the database are more than a minute apart, one of them is wrong, and the
server cannot know which. With a time that is too late, a record is stored longer; with one that is too early, it
would be dropped too soon. So the later time is used, and the difference is logged. (Deletions by time use the
earlier one: `Clocks`.)

The feed passes on the database's time at each poll, so this costs no round trip. Between two polls that time is
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
    """The time by this server's clock and by the database's, as `earlier` and `later`.

    Rows expire by the `earlier` one: a clock that is ahead for seconds would delete keys and sessions for
    good. A row counts as a leftover of a wrong clock if its time is after the `later` one.
    """

    earlier: datetime
    later: datetime


class RecordClock:
    """The clock of one server's records.

    `note` takes the database's time; `now` returns the time for a record.
    """

    def __init__(self) -> None:
        self._apart = False
        # The database's time and the monotonic time of reading it; None unless it is ahead by more than `APART`.
        self._later: tuple[datetime, float] | None = None

    def note(self, theirs: datetime) -> None:
        """Sets the database's time, which was just read."""
        ahead = theirs - datetime.now(UTC)
        apart = abs(ahead) > APART
        if apart and not self._apart:
            log.warning(
                "the clocks of the database and of this server differ: records have the later time",
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
