"""Conditions as in `metav1.Condition`, and as in older kinds, which have no `observedGeneration`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

JsonObject = dict[str, Any]


def with_conditions(
    old: Iterable[JsonObject] | None, new: Iterable[JsonObject], now: str
) -> list[JsonObject]:
    """Returns the old conditions, with those in `new` replacing the conditions of the same types.

    A condition whose status is unchanged keeps its `lastTransitionTime`; the others in `new` get `now`.
    """
    before = {entry["type"]: entry for entry in old or []}
    for entry in new:
        known = before.get(entry["type"])
        same = known is not None and known["status"] == entry["status"]
        since = known["lastTransitionTime"] if known is not None and same else now
        before[entry["type"]] = {**entry, "lastTransitionTime": since}
    return list(before.values())
