"""Conditions as `metav1.Condition`, and as the older kinds without `observedGeneration` have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

JsonObject = dict[str, Any]


def with_conditions(
    old: Iterable[JsonObject] | None, new: Iterable[JsonObject], now: str
) -> list[JsonObject]:
    """`new` in place of the conditions of the same types, and the others as they were.

    A condition keeps its `lastTransitionTime` while its status stays; `now` is that of the others.
    """
    before = {entry["type"]: entry for entry in old or []}
    for entry in new:
        known = before.get(entry["type"])
        same = known is not None and known["status"] == entry["status"]
        since = known["lastTransitionTime"] if known is not None and same else now
        before[entry["type"]] = {**entry, "lastTransitionTime": since}
    return list(before.values())
