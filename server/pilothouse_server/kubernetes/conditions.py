"""Conditions of objects on a cluster: those that every resource has, and how one replaces another."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pilothouse_server.values.resources import Condition, ObjectWarning

# Whether the cluster has the desired state.
APPLIED = "Applied"
# Not shown as a condition: the warnings of the cluster's response to the last apply, one a line.
WARNED = "Warned"
CLUSTER_WARNING = "CLUSTER"
REASON_LIMIT = 100
MESSAGE_LIMIT = 4096


def set_condition(conditions: Iterable[Condition], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """Replaces the condition of the same type with `new`; the time of transition changes only if the status does."""
    kept = {condition.type: condition for condition in conditions}
    old = kept.get(new.type)
    since = old.last_transition_time if old is not None and old.status == new.status else now
    kept[new.type] = msgspec.structs.replace(new, last_transition_time=since)
    return tuple(kept[type_] for type_ in sorted(kept))


def warned(messages: Iterable[str]) -> Condition:
    """Returns the condition that stores the warnings of an apply; its status is False without any."""
    lines = [message.replace("\n", " ") for message in messages]
    if not lines:
        return Condition(WARNED, "False")
    return Condition(WARNED, "True", CLUSTER_WARNING, "\n".join(lines)[:MESSAGE_LIMIT])


def warnings_of(conditions: Iterable[Condition]) -> tuple[ObjectWarning, ...]:
    """Returns the warnings that `warned` stored."""
    found = next((each for each in conditions if each.type == WARNED), None)
    return cluster_warnings(found.message.splitlines() if found is not None else ())


def cluster_warnings(messages: Iterable[str]) -> tuple[ObjectWarning, ...]:
    """Returns a cluster's messages as warnings."""
    return tuple(ObjectWarning(CLUSTER_WARNING, message=message) for message in messages)
