"""Conditions of objects on a cluster: those that every resource has, and how one replaces another."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pilothouse_server.values.resources import Condition

# Whether the cluster has what is wanted.
APPLIED = "Applied"
REASON_LIMIT = 100
MESSAGE_LIMIT = 4096


def set_condition(conditions: Iterable[Condition], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """Puts `new` in place of its namesake; the time of transition moves only when the status does."""
    kept = {condition.type: condition for condition in conditions}
    old = kept.get(new.type)
    since = old.last_transition_time if old is not None and old.status == new.status else now
    kept[new.type] = msgspec.structs.replace(new, last_transition_time=since)
    return tuple(kept[type_] for type_ in sorted(kept))
