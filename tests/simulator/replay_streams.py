"""Matches the objects of a replayed watch with those of the recorded one, and compares followed logs.

Most objects have the same name. A generated name corresponds to the next one of the same family: the same kind, name
prefix and labels, and for an event the same involved object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.simulator.replay_compare import GENERATED_LABELS, LINE_TIME, Difference, Substitutions

JsonObject = dict[str, Any]

# The generated suffixes of pods, and of replica sets.
_POD_SUFFIX = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}$")
_HASH = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{6,10}(?=$|-\*$)")


def by_object(events: list[JsonObject]) -> dict[str, list[JsonObject]]:
    """Returns the events of a watch by the name of their object, in order."""
    grouped: dict[str, list[JsonObject]] = {}
    for event in events:
        metadata = event.get("object", {}).get("metadata", {})
        grouped.setdefault(f"{metadata.get('name', '-')}", []).append(event)
    return grouped


def ends(events: list[JsonObject], others: list[JsonObject]) -> list[tuple[JsonObject, JsonObject]]:
    """Returns the first and last events as pairs; between them the steps of controllers may differ."""
    if not events or not others:
        return []
    return [(events[0], others[0]), (events[-1], others[-1])]


def text_differences(
    exchange: int, recorded: list[JsonObject], simulated: list[JsonObject], *, whole: bool
) -> list[Difference]:
    """Compares a followed log without the times of its lines. Unless `whole`, the recording ends early."""
    old, new = (LINE_TIME.sub("", "".join(line["text"] for line in lines)) for lines in (recorded, simulated))
    same = old == new if whole else new.startswith(old)
    return [] if same else [Difference(exchange, "lines", old, new)]


def stand_in_for(
    event: JsonObject, substitutions: Substitutions, candidates: Mapping[str, JsonObject]
) -> str | None:
    """Returns the candidate that corresponds to a recorded event: the first of the most similar ones."""
    families = {name: _families(candidate) for name, candidate in candidates.items()}
    for family in _families(event, substitutions):
        for name, others in families.items():
            if family in others:
                return name
    return None


def _families(event: JsonObject, substitutions: Substitutions | None = None) -> list[tuple[str, ...]]:
    """Returns the properties that an object shares with similar ones, except for its generated name.

    The involved object of an event may also have a generated name. If no response has shown that name yet, names that
    are equal without the generated part match.
    """
    obj = event.get("object", {})
    metadata, name = obj.get("metadata", {}), obj.get("involvedObject", {}).get("name", "")
    generated = metadata.get("generateName", "")
    labels = {
        key: text for key, text in (metadata.get("labels") or {}).items() if key not in GENERATED_LABELS
    }
    known = substitutions is not None and name in substitutions.values
    if substitutions is not None:
        name, generated = substitutions.text(name), substitutions.text(generated)
    alike = _POD_SUFFIX.sub("*", name)
    names = [name] if known else [name, alike, _HASH.sub("*", alike)]
    return [
        (str(obj.get("kind")), generated, str(sorted(labels.items())), called, str(obj.get("reason", "")))
        for called in dict.fromkeys(names)
    ]
