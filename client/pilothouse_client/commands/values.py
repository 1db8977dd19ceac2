"""Values of messages as text for tables: enums, times, durations, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pilothouse_client.names import enum_label as enum_label
from pilothouse_client.names import enum_prefix as enum_prefix
from pilothouse_client.names import labels_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp


def quoted(text: str) -> str:
    """Returns a text as a quoted value of a filter, with its special characters escaped."""
    return '"' + re.sub(r'(["\\*])', r"\\\1", text) + '"'


def enum_words(descriptor: EnumDescriptor) -> dict[str, int]:
    """Returns the words that a user may give, without `unspecified`."""
    return {label.lower(): number for number, label in labels_of(descriptor).items() if label}


def moment(timestamp: Timestamp) -> str:
    """Returns a time in RFC 3339 to the second, UTC; empty if it is unset."""
    if not timestamp.seconds and not timestamp.nanos:
        return ""
    return datetime.fromtimestamp(timestamp.seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(timestamp: Timestamp) -> str:
    """Returns the time since a moment in the greatest unit, as kubectl shows an age: `12s`, `3m`, `5h`, `2d`."""
    if not timestamp.seconds and not timestamp.nanos:
        return ""
    return _in_greatest_unit(max(0, int(datetime.now(UTC).timestamp() - timestamp.seconds)))


def time_left(timestamp: Timestamp) -> str:
    """Returns the time until a moment in the greatest unit.

    Empty if the moment is unset or past.

    It is also empty for less than a minute ahead, because clocks may differ by that."""
    seconds = int(timestamp.seconds - datetime.now(UTC).timestamp())
    return _in_greatest_unit(seconds) if seconds >= 60 else ""


def _in_greatest_unit(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def span(duration: Duration) -> str:
    """Returns a duration in its two greatest units; empty for zero."""
    return short_span(duration.seconds + duration.nanos / 1e9) if duration.seconds or duration.nanos else ""


def short_span(seconds: float) -> str:
    """Returns seconds as people write them: `850ms`, `42s`, `3m5s`, `2h10m`, `4d3h`."""
    if seconds < 0:
        return "-" + short_span(-seconds)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = timedelta(seconds=int(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    parts = [(whole.days, "d"), (hours, "h"), (rest // 60, "m"), (rest % 60, "s")]
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return "".join(f"{amount}{unit}" for amount, unit in parts[first : first + 2] if amount)


def size(number: float) -> str:
    """Returns bytes in binary units: `64Mi`, `1.5Gi`."""
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if abs(number) < 1024:
            return f"{number:.4g}{unit}" if unit else f"{int(number)}"
        number /= 1024
    return f"{number:.4g}Pi"


def labels(mapping: Mapping[str, str]) -> str:
    """Returns labels in order of their keys."""
    return ",".join(f"{key}={value}" for key, value in sorted(mapping.items()))


def optional(message: Any, field: str, form: str = "{:.1f}%") -> str:
    """Returns a number as text; empty if it is unset."""
    return form.format(getattr(message, field)) if message.HasField(field) else ""


def refusal(message: Any) -> str:
    """Returns whether the cluster has the desired state: `yes`, `waiting`, or the reason why not."""
    from pilothouse.resource.v1 import resource_pb2

    for condition in message.conditions:
        if condition.type == "Applied" and condition.status != resource_pb2.CONDITION_STATUS_TRUE:
            return str(condition.reason)
    return "waiting" if message.reconciling else "yes"
