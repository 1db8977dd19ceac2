"""Times and spans of time as people write them on a command line."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pilothouse_client.commands.failures import CommandError

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)


def parse_span(text: str, option: str) -> float:
    """Returns the seconds of `90s`, `1h30m`, `7d`.

    Raises CommandError for other forms, and for zero."""
    parts = list(_PART.finditer(text))
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if "".join(part[0] for part in parts) != text or not parts or not 0 < seconds < math.inf:
        raise CommandError(f"{option} takes a duration above 0, such as 90s, 1h30m or 7d, not {text!r}", 2)
    return seconds


def parse_time(text: str, option: str) -> datetime:
    """Returns a time, given as RFC 3339 (default zone: this machine's) or as how long ago, such as `2h`."""
    if _PART.match(text):
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_span(text, option))
        except OverflowError:
            raise CommandError(f"{option} {text} is too long ago", 2) from None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option} takes a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h, not {text!r}",
            2,
        ) from None


def to_timestamp(moment: datetime) -> Timestamp:
    """Returns a time as a message."""
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def to_duration(seconds: float) -> Duration:
    """Returns seconds as a message."""
    from google.protobuf.duration_pb2 import Duration

    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
