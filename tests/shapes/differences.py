"""The complete list of differences that `apply` may make between a manifest and the object on the cluster.

The manifest is also posted to the cluster directly, so that the cluster's own defaults are in both objects. Every
other difference has an entry in `ALLOWED`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

OURS = re.compile(r"pilothouse\.dev/.+|app\.kubernetes\.io/(name|managed-by)")


@dataclass(frozen=True, slots=True)
class Absent:
    """The value of a missing key."""

    def __str__(self) -> str:
        return "nothing"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """A path, and its values in the posted object and in the platform's object."""

    path: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.path}: written {self.theirs}, on the cluster {self.ours}"


@dataclass(frozen=True, slots=True)
class AllowedDifference:
    """A regular expression that matches a whole path, and the rule for the two values there."""

    reason: str
    path: str
    holds: Callable[[Any, Any], bool]

    def __call__(self, difference: Difference) -> bool:
        return re.fullmatch(self.path, difference.path) is not None and self.holds(
            difference.theirs, difference.ours
        )


def _added(theirs: Any, ours: Any) -> bool:
    return theirs is ABSENT


def _both(theirs: Any, ours: Any) -> bool:
    return theirs is not ABSENT and ours is not ABSENT


_METADATA = r"(\.spec(\.jobTemplate(\.spec\.template)?|\.template))?\.metadata"
ALLOWED = (
    AllowedDifference(
        "our labels and annotations", rf"{_METADATA}\.(labels|annotations)\[({OURS.pattern})\]", _added
    ),
    AllowedDifference("labels, where there were none", rf"{_METADATA}\.(labels|annotations)", _added),
    AllowedDifference(
        "our label in the selector of a Service",
        r"\.spec\.selector\[pilothouse\.dev/container-uid\]",
        _added,
    ),
    AllowedDifference(
        "our label in the selector of a Deployment",
        r"\.spec\.selector\.matchLabels\[pilothouse\.dev/container-uid\]",
        _added,
    ),
    AllowedDifference(
        "the uid of a Job, by which the cluster selects its pods",
        r"\.spec\.(template\.metadata\.labels|selector\.matchLabels)"
        r"(\[batch\.kubernetes\.io/controller-uid\]|\.controller-uid)",
        _both,
    ),
    AllowedDifference(
        "the server's own metadata",
        r"\.metadata\.(uid|resourceVersion|creationTimestamp|generation|managedFields|namespace)(\[.*|\.f:.*)?",
        lambda theirs, ours: True,
    ),
    AllowedDifference("addresses that the cluster chooses", r"\.spec\.clusterIP(s\[0\])?", _both),
    AllowedDifference("ports that the cluster chooses", r"\.spec\.ports\[.+\]\.nodePort", _both),
    AllowedDifference(
        "storage that the cluster chooses",
        r"\.spec\.volumeName|\.metadata\.annotations\[volume\.kubernetes\.io/selected-node\]",
        lambda theirs, ours: True,
    ),
    AllowedDifference("the state", r"\.status.*", lambda theirs, ours: True),
)


def differences(theirs: Any, ours: Any) -> list[str]:
    """Returns the differences between two objects of the cluster that are not allowed."""
    found = _differences(_normalised(theirs), _normalised(ours), "")
    return [str(each) for each in found if not any(allowed(each) for allowed in ALLOWED)]


def _normalised(found: Any) -> Any:
    """Returns an object with the pod's volumes named by their sources, and sorted.

    A volume of the platform has one name for all pods, and the order of volumes has no meaning.
    """
    copy = json.loads(json.dumps(found))
    spec = copy.get("spec", {})
    pod = spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("spec", {})
    names = {}
    for volume in pod.get("volumes", ()):
        name = volume.pop("name")
        volume["name"] = names[name] = json.dumps(volume, sort_keys=True)
    pod.get("volumes", []).sort(key=lambda volume: str(volume["name"]))
    for program in (*pod.get("containers", ()), *pod.get("initContainers", ())):
        for mount in program.get("volumeMounts", ()):
            # A claim from a claim template is not in the list of volumes.
            mount["name"] = names.get(mount["name"], mount["name"])
    return copy


def _differences(theirs: Any, ours: Any, path: str) -> Iterator[Difference]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*theirs, *ours]):
            inner = f"{path}[{key}]" if re.search(r"[./]", key) else f"{path}.{key}"
            yield from _differences(theirs.get(key, ABSENT), ours.get(key, ABSENT), inner)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) == len(ours):
            for index, (one, other) in enumerate(zip(_sorted(theirs), _sorted(ours), strict=True)):
                yield from _differences(one, other, f"{path}[{index}]")
        else:
            yield Difference(path, theirs, ours)
    elif theirs != ours:
        yield Difference(path, theirs, ours)


def _sorted(items: list[Any]) -> list[Any]:
    """Sorts lists whose order has no meaning by their keys."""
    for keys in (("mountPath",), ("containerPort", "protocol"), ("port", "protocol")):
        if all(isinstance(item, dict) and item.keys() >= {*keys} for item in items):
            return sorted(items, key=lambda item: [str(item[key]) for key in keys])
    return items
