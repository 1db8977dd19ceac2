"""Priority of pods: the number and the preemption policy of the PriorityClass that a new pod names.

Two classes are built in; all others must be created. Preemption is not simulated.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import PODS, PRIORITY_CLASSES

JsonObject = dict[str, Any]

_BUILT_IN = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_PREEMPTS = "PreemptLowerPriority"


def admit(store: ObjectStore, pod: JsonObject) -> None:
    """Sets the priority and preemption policy of the pod's class. Raises 403 for a class that does not exist."""
    spec = pod["spec"]
    found = _class(store, spec.get("priorityClassName", ""))
    if found is None:
        message = f"no PriorityClass with name {spec['priorityClassName']} was found"
        raise api_errors.forbidden(PODS, pod["metadata"].get("name", ""), message)
    if name := found["metadata"]["name"]:
        spec["priorityClassName"] = name
    spec["priority"] = found["value"]
    spec.setdefault("preemptionPolicy", found.get("preemptionPolicy", _PREEMPTS))


def _class(store: ObjectStore, name: str) -> JsonObject | None:
    if name in _BUILT_IN:
        return {"metadata": {"name": name}, "value": _BUILT_IN[name]}
    if name:
        return store.get(PRIORITY_CLASSES, None, name)
    default = next((each for each in store.list(PRIORITY_CLASSES) if each.get("globalDefault")), None)
    return default or {"metadata": {"name": ""}, "value": 0}
